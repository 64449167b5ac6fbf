from targets_for_tests import own_home  # noqa: F401
