"""Django beside session-gateway: session engines that merge, and a command that writes its configuration."""

__version__ = "0.1.0"
