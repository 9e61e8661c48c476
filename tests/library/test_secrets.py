import json

import pytest

from library.secrets import Secret, hide_tokens, hide_words, shown_command


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hf_abc")
    assert (str(secret), repr(secret), f"{secret}", f"{[secret]}") == ("***", "***", "***", "[***]")
    assert secret.reveal() == "hf_abc"
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_tokens_are_hidden_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123abcd")
    text = "key 0123abcd, token hf_AbCdEfGhIj, other opensesame, hf_x stays"
    assert hide_tokens(text, Secret("opensesame"), None) == "key ***, token ***, other ***, hf_x stays"
    assert hide_tokens("line 3: wandb_api_key = 12ab") == "line 3: wandb_api_key = ***"
    assert hide_tokens('{"huggingface_token": 12ab}') == '{"huggingface_token": ***'
    assert hide_tokens("proxy http://me:secret@host:1/") == "proxy http://me:***@host:1/"
    for text in ("--wandb_api_key has no effect", "keep_tokens = 3", "--huggingface_token: needs a value"):
        assert hide_tokens(text) == text


def test_a_command_is_shown_without_tokens() -> None:
    words = [
        "x.py",
        "--huggingface_token",
        "abc",
        "--wandb_api_key=def",
        "--keep_tokens",
        "2",
        "-o",
        "hf_AbCdEfGhIj",
    ]
    assert shown_command(words) == "x.py --huggingface_token *** --wandb_api_key=*** --keep_tokens 2 -o ***"


def test_tokens_are_taken_out_of_a_command_line() -> None:
    words = ["x.py", "--token", "abc", "--token=abc", "--name", "abcd"]
    hide_words(words, [("--token", "abc")])
    assert words == ["x.py", "--token", "***", "--token=***", "--name", "abcd"]
