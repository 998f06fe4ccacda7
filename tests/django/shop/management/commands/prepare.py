"""manage.py prepare: the tables, and the users alice (1) and bob (2), whose passwords are their names."""

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args, **options):
        call_command("migrate", verbosity=0)
        for name in ["alice", "bob"]:
            get_user_model().objects.create_user(name, password=name)
