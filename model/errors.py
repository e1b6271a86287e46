"""Defines the exceptions of the model package."""


class ModelError(Exception):
    """Base class of the exceptions of the model package."""


class CardError(ModelError):
    """A card is missing or invalid."""


class CheckpointError(ModelError):
    """A weight file is missing, incomplete, of an unknown layout or unsafe to read."""


class PromptError(ModelError):
    """A prompt cannot be parsed; `limit` is the maximum weight or nesting that it exceeds."""

    def __init__(self, message: str, limit: float) -> None:
        super().__init__(message)
        self.limit = limit


class InputMissing(ModelError):
    """An input picture of the request is missing or cannot be read."""


class NonFiniteLatents(ModelError):
    """Latents or pixels contain NaN or infinity."""


class DeviceLost(ModelError):
    """The device no longer works; the process that uses it must end."""


class LoraError(ModelError):
    """A LoRA cannot be used. The message names it."""


class LoraMissing(LoraError):
    """The LoRA folder has no file of this name."""


class LoraChanged(LoraError):
    """The LoRA's file has changed since the request was accepted."""


class LoraUnusable(LoraError):
    """A LoRA's file cannot be read or does not fit this checkpoint."""


class PolicyError(ModelError):
    """The policy's rules cannot be read or contradict each other. The message says where."""


class PolicyBlocked(ModelError):
    """The policy refuses a request. Carries the rule and its reason, never words of the prompt."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"refused by the rule {rule}: {reason}")
        self.rule = rule
        self.reason = reason
