"""Who may do what: REQ-016's table, cell by cell."""

ROLES = ("owner", "admin", "supervisor", "auditor", "member", "guest", "bot")
ANYBODY = frozenset(ROLES)
NOT_OWNERS = ANYBODY - {"owner"}
NOBODY = frozenset()

# Of each operation: the roles of others that an owner, and an admin, may act on; whether those two may act on
# their own user; and the roles that may act on their own user besides.
_SELF = frozenset(ROLES[2:])
_TABLE = {
    "add_user": (False, NOBODY),
    "set_profile": (True, _SELF),
    "set_role": (True, NOBODY),
    "suspend_user": (True, NOBODY),
    "remove_user": (True, _SELF),
    "invite": (True, _SELF - {"guest"}),
    "cancel_invite": (True, _SELF),
    "revoke_device": (True, _SELF),
}

ALONE, WITH_ORDER = "organisation", "organisation, with an order"
_ALWAYS = frozenset((ALONE, WITH_ORDER))
_ON_ORGANISATION = {
    "set_policy": {"owner": _ALWAYS},
    "rotate_directory_key": {**dict.fromkeys(ROLES, frozenset((WITH_ORDER,))), "owner": _ALWAYS, "admin": _ALWAYS},
    "close_group": {"owner": _ALWAYS, "admin": _ALWAYS},
}


def may(actor_role, operation, target):
    """`target` is "own", the role of another user, or one of the two about the organisation as a whole."""
    if operation in _ON_ORGANISATION:
        return target in _ON_ORGANISATION[operation].get(actor_role, NOBODY)
    leaders_own, others_own = _TABLE[operation]
    if target == "own":
        return leaders_own if actor_role in ("owner", "admin") else actor_role in others_own
    if target in _ALWAYS:
        return False
    return target in {"owner": ANYBODY, "admin": NOT_OWNERS}.get(actor_role, NOBODY)


_RANK = {"owner": 0, "admin": 1, "supervisor": 2, "auditor": 2, "member": 3, "bot": 3, "guest": 4}


def is_demotion(old, new):
    """REQ-023."""
    return _RANK[new] > _RANK[old]
