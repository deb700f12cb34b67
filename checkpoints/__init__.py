"""Published weights: `zoo.yaml` names them, `bevnext-sam2 checkpoints` gets and converts them; they lie here."""
