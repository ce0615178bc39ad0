"""The smallest records of each kind, whole and made up."""

import dataclasses

from jaxdebias.results import records


def provenance():
    return records.Provenance(
        versions={"jaxdebias": "0.1.0", "jax": "0.10.2"},
        device="cpu x1 (2 cores, x86_64)",
        date="2026-01-31T12:00:00Z",
        seconds=2.5,
        seconds_by_step={"data": 0.5, "train": 2.0},
        seconds_by_part={},
        seed=0,
        arguments={"data": "digits", "rounds": 3, "augment": None},
        data="0123456789abcdef",
    )


def rate(value, n=100, **more):
    kind = records.GroupRate if more else records.Rate
    return kind(value=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1), n=n, **more)


def change(value, **more):
    return records.Change(value=value, low=value - 0.05, high=value + 0.05, n=200, **more)


def measurement(accuracy=0.8):
    return records.Measurement(
        accuracy=rate(accuracy),
        group_mean_accuracy=rate(accuracy),
        reweighted_accuracy=rate(accuracy),
        worst_group_accuracy=rate(accuracy / 2, group="cat · dark"),
        bias_aligned_accuracy=rate(0.9),
        bias_conflicting_accuracy=rate(0.5),
        counterfactual_bias=None,
        alignment_gap=records.Difference(value=0.4, low=0.3, high=0.5, n=200, separable=True),
        demographic_parity_difference=None,
        equal_opportunity_difference=None,
        equalised_odds_difference=records.LargestDifference(
            value=None, low=None, high=None, n=0, p=None, highest=None, lowest=None, all_groups=0.6, left_out=("dark",)
        ),
        groups=tuple(
            records.Group(
                label=y, attribute=a, label_name=("cat", "dog")[y], attribute_name=("light", "dark")[a],
                aligned=y == a, n=100, accuracy=rate(0.9 if y == a else 0.5), flagged=False,
            )
            for y in range(2)
            for a in range(2)
        ),
        confusion_by_group=(((90, 10), (50, 50)), ((50, 50), (10, 90))),
    )  # fmt: skip


def run(**changes):
    """Of `train`."""
    return dataclasses.replace(
        records.RunResults(
            command="train",
            provenance=provenance(),
            dataset="pets",
            variant={"conflicting": 0.02},
            method="erm",
            model="mlp",
            attribute="light",
            items="pets",
            level=0.95,
            pairing="none",
            label_names=("cat", "dog"),
            attribute_names=("light", "dark"),
            train_counts=((90, 10), (10, 90)),
            aligned=((True, False), (False, True)),
            before=measurement(),
            after=None,
            edit=None,
            baselines={},
            training=records.Training(epochs=2, loss=(0.5, None)),
            harmful=(records.Sample(index=3, label=0, attribute=-1, score=1e-3),),
            harmful_rows=None,
            helpful=(),
            helpful_rows=None,
            findings=("All groups are small.",),
            config={"data": "digits", "options": {"conflicting": 0.02}},
        ),
        **changes,
    )


def features():
    """Of `debias-features`."""
    metrics = records.Metrics(
        accuracy=rate(0.8), worst_group_accuracy=None, group_mean_accuracy=None, bias_aligned_accuracy=rate(0.9),
        bias_conflicting_accuracy=rate(0.5), counterfactual_bias=rate(0.3),
    )  # fmt: skip
    return records.FeatureResults(
        command="debias-features",
        provenance=provenance(),
        method="dfr",
        bias="pair",
        features=3,
        classes=2,
        head={"weight": (2, 3)},
        rows={"edit": 20, "train": None},
        factor=False,
        split="test",
        before=metrics,
        after=metrics,
        changes={"accuracy": change(0.0)},
        edit=records.Edit(accepted=True, reason="Refitted.", parameters_changed=6, parameters=6, rounds=()),
        findings=(),
    )


def language():
    """Of `debias-language`."""
    one = records.Interval(value=1.5, low=1.0, high=None, n=40)
    measured = records.LanguageMeasurement(
        pairs={"edit": records.PairScores(absolute=one, signed=one, preferred=one)},
        perplexity=one,
        stereoset={"gender": records.StereoSet(ss=one, lms=one, icat=one, items=4)},
        crows={"all": records.CrowsPairs(score=one, stereo=one, antistereo=one, neutral=0)},
    )
    return records.LanguageResults(
        command="debias-language",
        provenance=provenance(),
        dataset="language",
        variant={"planted": True},
        method="fmd",
        model="gpt2",
        edit_config={"rounds": 1},
        before=measured,
        after=measured,
        changes=records.LanguageChanges(
            pairs={"edit": change(0.1)},
            perplexity=change(0.1),
            stereoset={"gender": records.StereoSetChanges(ss=change(0.1), lms=change(0.1), icat=change(0.1))},
            crows={"all": change(0.1)},
        ),
        baselines={"cda": records.LanguageBaseline(measurement=measured, needs="pairs", chosen="step 3")},
        edit=records.LanguageEdit(
            accepted=True, bias_before=1.0, bias_after=0.5, perplexity_before=20.0, perplexity_after=21.0, fall=3.0,
            parameters=10, parameters_changed=10, parameters_of_model=100,
            rounds=(
                records.LanguageRound(round=1, u=0.1, t=1.0, predicted_change=-0.4, achieved_change=-0.5, bias=0.5,
                                      perplexity=21.0, residual=None, iterations=7),
            ),
        ),
        harmful=(records.Sentence(index=0, text="She is a nurse.", score=0.1),),
        helpful=(),
        findings=(),
    )  # fmt: skip


def verdict():
    """With every part, the key `class` included."""
    estimate = records.Estimate(value=0.2, low=0.1, high=0.3)
    group = records.RatedGroup(name="dark", n=80, value=0.6, low=0.5, high=0.7)
    unchecked = records.Rival(state="not_checked", figure=None)
    return records.Verdict(
        tolerance=0.05, level=0.95, min_group=30, alpha=0.05,
        headline="Accuracy differs by 20 points.",
        disparity=(
            records.Disparity(attribute="light", measure="recall_of_class", class_="cat", state="exceeds",
                              gap=estimate, p=0.01, highest=group, lowest=group,
                              left_out=(records.NamedGroup(name="dim", n=4),), indistinguishable=1),
        ),
        reliance=(
            records.Reliance(attribute="light", state="consistent", drawn="unknown", evidence="mistakes",
                             lean=estimate, p=0.01, mistakes=40, detectable=0.08, copies=(),
                             rivals=records.Rivals(base_rates=unchecked, label_noise=unchecked, fallback=unchecked)),
        ),
        association=(records.Association(attribute="light", cramers_v=estimate, n=200),),
        advice=records.Recommendation(
            state="reliance_retrain", sentence="Retrain without light.", repair="dfr",
            held_out=records.RepairEffect(gain=0.01, low=-0.02, high=0.03, p=0.4, discordant=9),
            test=None, rows_needed=None,
        ),
    )  # fmt: skip


SMALL = {
    "train": run,
    "features": features,
    "language": language,
    "verdict": lambda: run(command="audit", verdict=verdict()),
}
