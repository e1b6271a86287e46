"""What can go wrong inside the model package; callers translate these at their own border."""


class ModelError(Exception):
    """Anything the model package refuses or cannot do."""


class CardError(ModelError):
    """A card is missing or says something impossible."""


class CheckpointError(ModelError):
    """A weight file is missing, incomplete, of another layout or unsafe to read."""


class PromptError(ModelError):
    """A prompt cannot be tokenized: a bad weight, or nesting beyond the limit, which it carries."""

    def __init__(self, message: str, limit: float) -> None:
        super().__init__(message)
        self.limit = limit


class InputMissing(ModelError):
    """A picture that the request starts from is gone or cannot be read."""


class NonFiniteLatents(ModelError):
    """Latents or pixels contain NaN or infinity; a picture made of them would be a lie."""


class DeviceLost(ModelError):
    """The device does not compute any more; the process that holds it has to end."""


class LoraError(ModelError):
    """A LoRA cannot be used; the message names it."""


class LoraMissing(LoraError):
    """The folder has no LoRA of this name."""


class LoraChanged(LoraError):
    """The LoRA's file is another one than when the request was accepted."""


class LoraUnusable(LoraError):
    """A LoRA's file cannot be read, or does not fit this checkpoint."""


class PolicyError(ModelError):
    """The policy's rules cannot be read or contradict one another; the message says where."""


class PolicyBlocked(ModelError):
    """A request that the policy refuses: the rule's name and reason, never the prompt's words."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"refused by the rule {rule}: {reason}")
        self.rule = rule
        self.reason = reason
