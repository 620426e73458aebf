"""How many prompts each effort uses."""

# prompts per label and split, at most; claims want at least 60 hazardous prompts to evaluate
EFFORT = {
    "quick": {"fit": 64, "select": 32, "evaluate": 64},
    "standard": {"fit": 128, "select": 32, "evaluate": 100},
    "full": {"fit": 256, "select": 64, "evaluate": 400},
}
