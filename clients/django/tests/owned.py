"""A session engine of one's own, made from the merging one."""

from session_gateway_django import db


class SessionStore(db.SessionStore):
    """Fills the column ``customer`` with the user."""

    @classmethod
    def get_model_class(cls):
        from tests.models import CustomerSession

        return CustomerSession

    def create_model_instance(self, data):
        row = super().create_model_instance(data)
        row.customer = str(data.get("_auth_user_id", ""))
        return row
