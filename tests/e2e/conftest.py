from targets_for_tests import own_home, start_command  # noqa: F401
