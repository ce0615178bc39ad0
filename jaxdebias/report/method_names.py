"""Names of methods as people read them."""

METHOD_NAMES = {"erm": "ERM", "fmd": "FMD", "sih": "SiH", "aug-cell": "AUG-CELL",
                "dbvae": "DB-VAE", "gce": "GCE", "groupdro": "GroupDRO",
                "jtt": "JTT", "lff": "LfF", "disent": "DisEnt", "dfr": "DFR", "mixing": "channel mixing",
                "fine_tune": "fine-tuning", "scratch": "from scratch", "fine_tune_head": "fine-tuning the last layer",
                "refit_head": "the last layer refitted", "retrain_counterfactual": "retraining with counterfactuals",
                "self_influence": "self-influence fine-tuning",
                "zero_column": "the column held at its mean",
                "dfr_train": "DFR on training rows", "group_balanced": "group-balanced retraining",
                "group-balanced": "group-balanced draws", "group-dro": "GroupDRO"}  # fmt: skip


def method_name(method: str) -> str:
    """The name of a method, by its code.

    >>> method_name("dfr"), method_name("mine")
    ('DFR', 'mine')
    """
    return METHOD_NAMES.get(method, method)
