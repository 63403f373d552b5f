"""How good a model is: published protocols, metrics, reports and figures."""
