"""Jobs of a tested study run as a user's do, without torch, which tests alone need: transformers
would load it in each of them, for seconds."""

import sys

sys.modules["torch"] = None
