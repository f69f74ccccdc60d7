"""Settings of the property tests here."""

from hypothesis import settings

# A busy machine is no failure: no test looks at the clock.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
