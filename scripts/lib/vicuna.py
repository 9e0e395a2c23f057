"""Prompts of Vicuna's form, which LLaVA-1.5 is asked in."""


def with_system(prompt: str, system: str) -> str:
    """A prompt of Vicuna's form ("USER: ... ASSISTANT:") with `system` before it. Other prompts are
    returned unchanged.
    """
    return f"{system} {prompt}" if system and prompt.startswith("USER:") else prompt
