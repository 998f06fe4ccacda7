"""manage.py serve: serves the site on a port that the system chooses, and prints `listening on ADDRESS`.

It ends when its standard input does, so that it never outlives the test that started it.
"""

import os
import sys
import threading

import waitress
from django.core.management import BaseCommand
from django.core.wsgi import get_wsgi_application


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args, **options):
        # waitress would remove X-Forwarded-*; other servers leave them, and the gateway has judged them.
        server = waitress.create_server(
            get_wsgi_application(), listen="127.0.0.1:0", threads=8, clear_untrusted_proxy_headers=False
        )
        threading.Thread(target=end_with_input, daemon=True).start()
        print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
        server.run()


def end_with_input():
    """Ends the process at the end of its standard input."""
    sys.stdin.read()
    os._exit(0)
