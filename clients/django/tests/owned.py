"""A session engine of one's own, made from the merging one."""

from session_gateway_django import db


class SessionStore(db.SessionStore):
    """Fills the column ``account`` with the user."""

    @classmethod
    def get_model_class(cls):
        from tests.models import OwnedSession

        return OwnedSession

    def create_model_instance(self, data):
        row = super().create_model_instance(data)
        row.account = str(data.get("_auth_user_id", ""))
        return row
