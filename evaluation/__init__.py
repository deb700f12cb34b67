"""Official metrics, predictions in and out, figures and reports."""
