"""Influence scores against retraining (math.md M15): what scripts/validate is made of."""
