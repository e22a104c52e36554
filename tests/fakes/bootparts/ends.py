"""How a boot of the fake machine ends: the code that runs on it is left."""


class EndError(BaseException):
    """The machine has left the code that runs on it; nothing may catch that."""


class HandedOverError(EndError):
    """systemd runs."""


class PoweredOffError(EndError):
    """It is off."""


class RestartedError(EndError):
    """It was reset."""
