"""Which rule of the policy refuses a prompt."""

from model.errors import PolicyBlocked
from model.policy.policy import Policy
from model.rating import Rating
from model.request import LoraChoice


def rule_of(
    policy: Policy, prompt: str, ceiling: Rating = "explicit", lora: str = ""
) -> str | None:
    """The rule that refuses a prompt, with a LoRA of this name if any; None if it is allowed."""
    try:
        loras = [LoraChoice(name=lora)] if lora else []
        policy.check(prompt, ceiling=ceiling, loras=loras)
    except PolicyBlocked as refusal:
        return refusal.rule
    return None
