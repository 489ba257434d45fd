"""How hypothesis looks for counterexamples here."""

from hypothesis import HealthCheck, settings

# A deadline would measure the machine, not the code; a loaded one is also slow to draw.
settings.register_profile("dayfly", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dayfly")
