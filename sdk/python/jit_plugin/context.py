"""Context providers: they gather the facts that policies judge."""

from __future__ import annotations

from typing import Generic, Iterable, Mapping, TypeVar

from .checks import answering, pairs
from .config import Problem
from .http import Http
from .registered import in_brackets, register
from .request import Request

C = TypeVar("C")


class _Provider(Generic[C]):
    def validate(self, config: C) -> Iterable[Problem]:
        """Mistakes that the type cannot express. Called at load, without a connection."""
        return ()

    @classmethod
    def config_type(cls) -> type:
        """What stands in the brackets."""
        return in_brackets(cls, _Provider, "Context[Config]")[0]


class Context(_Provider[C]):
    """Gathers facts from its configuration and the request: `class MyFacts(Context[Config])`.

    What it returns becomes `facts` of the policies' request, as `<provider>.<name>`, and stands in the audit record:
    never put a secret into a fact. An exception is a failure, which denies unless the configuration says otherwise.
    """

    def gather(self, config: C, request: Request) -> Mapping[str, str]:
        """Facts by name. The request has no facts yet."""
        raise NotImplementedError


class HttpContext(_Provider[C]):
    """Gathers facts and may ask a server for them: `class MyFacts(HttpContext[Config])`.

    Its project has `world = "http"` in pyproject.toml, and its section of the broker's configuration a `connection`.
    The rest is as with `Context`.
    """

    def gather(self, http: Http, config: C, request: Request) -> Mapping[str, str]:
        """Facts by name. The request has no facts yet."""
        raise NotImplementedError


def facts(
    provider: Context[C] | HttpContext[C], http: Http | None, config: C, request: Request
) -> list[tuple[str, str]]:
    """What it gathers, as the host takes it."""
    if isinstance(provider, HttpContext):
        if http is None:
            raise TypeError(f"{type(provider).__name__} asks a server: give it one")
        gathered = provider.gather(http, config, request)
    else:
        gathered = provider.gather(config, request)
    with answering(provider.gather):
        return pairs("facts", gathered)


def register_context(context: type[Context] | type[HttpContext]) -> type:
    """Makes the class the context provider of this plugin. Once, at the end of the module."""
    if not (isinstance(context, type) and issubclass(context, (Context, HttpContext))):
        raise TypeError(f"{context!r} is no context provider: derive it from Context or HttpContext")
    context.config_type()
    base = HttpContext if issubclass(context, HttpContext) else Context
    register(context, "context provider", base, ("gather",))
    return context
