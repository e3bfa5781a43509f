from __future__ import annotations

import json

import pytest
from bundles import item_id, make_recipe
from fastapi.testclient import TestClient

from recsys.errors import RecipeError
from serve.ranking.verbs import verbs_of


@pytest.mark.parametrize(
    ("names", "given", "purchase"),
    [
        ({}, {}, "bought {}"),
        ({"played": "purchase"}, {}, "played {}"),
        ({"long_listened": "purchase"}, {}, "long listened {}"),
        ({"order": "purchase"}, {}, "bought {}"),
        ({"played": "purchase", "finished": "purchase"}, {}, "bought {}"),
        ({"viewed": "view"}, {}, "bought {}"),
        ({"feed": "purchase"}, {}, "bought {}"),
        ({"wish{x}ed": "purchase"}, {}, "bought {}"),
        ({"played": "purchase"}, {"purchase": "listened to {}"}, "listened to {}"),
    ],
)
def test_the_shop_s_own_verb(names: dict, given: dict, purchase: str) -> None:  # type: ignore[type-arg]
    verbs = verbs_of(names, given)
    assert verbs["purchase"] == purchase
    assert verbs["add_to_cart"] == "put {} into the cart"


@pytest.mark.parametrize("serve_settings", [{"max_k": 50, "verbs": {"purchase": "played {}"}}])
def test_an_explanation_says_it(client: TestClient) -> None:
    client.post("/events", json={"user_id": "u", "item_id": item_id(1), "event_type": "buy"})
    answer = client.post("/recommend", json={"user_id": "u", "explain": True, "k": 50})
    sentences = [item["explanation"]["sentence"] for item in answer.json()["items"]]
    assert any(sentence.startswith("You played ") for sentence in sentences)
    assert "bought" not in json.dumps(sentences)


@pytest.mark.parametrize("verb", ["bought", "bought {} and {}", "{x}", ""])
def test_a_verb_names_the_item_once(tmp_path, language_model, verb) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match="verbs"):
        make_recipe(tmp_path, language_model, serve={"verbs": {"purchase": verb}})
