"""Who is who on the test control plane: static tokens, and kubeconfigs made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "system:serviceaccount:kubevirt:"
ACCOUNTS = ("system:serviceaccounts", "system:serviceaccounts:kubevirt", "system:authenticated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user as kube-apiserver sees the bearer of a token."""

    token: str
    user: str
    groups: tuple[str, ...]


def _identity(name: str, user: str, *groups: str) -> Identity:
    return Identity(token=f"{name}-token", user=user, groups=groups)


# virt-api admits changes of a VMI's status only from KubeVirt's own accounts, so each part has its own name; their
# rights are those that virt-operator would give them. `kubelet` may do everything but has a name of its own, so that
# the audit log tells the node plane's writes from a test's.
TOKENS = {
    "admin": _identity("admin", "admin", "system:masters"),
    "kubelet": _identity("kubelet", "kubelet", "system:masters"),
    "scheduler": _identity("scheduler", "system:kube-scheduler", "system:authenticated"),
    "controller": _identity("controller", f"{ACCOUNT}kubevirt-controller", *ACCOUNTS),
    "apiserver": _identity("apiserver", f"{ACCOUNT}kubevirt-apiserver", *ACCOUNTS),
    "handler": _identity("handler", f"{ACCOUNT}kubevirt-handler", *ACCOUNTS),
    "nobody": _identity("nobody", "nobody", "system:authenticated"),
}


def write_tokens(path: Path) -> None:
    """The file for kube-apiserver's --token-auth-file."""
    lines = [f'{who.token},{who.user},{who.user},"{",".join(who.groups)}"' for who in TOKENS.values()]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


def write_kubeconfig(path: Path, *, url: str, ca_file: Path, user: str, token: str) -> None:
    """A kubeconfig with one context; JSON, which is YAML too."""
    name = "controlplane"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
