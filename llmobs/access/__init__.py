"""Who may send and who may read: keys, their roles and their quotas."""

from llmobs.access.keys import ANYONE, Key, KeyOwner, Keys, Role
from llmobs.access.quota import Quota

__all__ = ["ANYONE", "Key", "KeyOwner", "Keys", "Quota", "Role"]
