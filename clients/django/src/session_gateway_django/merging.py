"""The three-way merge of a session's top-level keys."""

# Who is logged in stands in several keys, which mean nothing apart from each other.
LOGIN = "_auth_user_"


def merge(base, ours, theirs, spell):
    """Gives ``theirs`` with what ``ours`` has changed since ``base``.

    A key that only one side has changed, set or deleted is as that side has it; one that both have changed is as in
    ``ours``, which is saved last. The keys of a login are one: changed together or not at all. ``spell`` gives the
    stored form of a value, by which values are compared: ``1``, ``1.0`` and ``True`` are equal, and three values.
    """

    def same(one, other, key):
        if key not in one or key not in other:
            return key in one and key in other
        return one[key] is other[key] or spell(one[key]) == spell(other[key])

    changed = {key for key in {**base, **ours} if not same(base, ours, key)}
    if any(is_login(key) for key in changed):
        changed.update(key for key in {**base, **ours, **theirs} if is_login(key))
    merged = {}
    for key, value in theirs.items():
        if key not in changed:
            # Where both have the same it stays this object: somebody may hold it, and change it later.
            merged[key] = ours[key] if same(ours, theirs, key) else value
    merged.update((key, value) for key, value in ours.items() if key in changed)
    return merged


def is_login(key):
    """Whether this key is a part of the login."""
    return isinstance(key, str) and key.startswith(LOGIN)
