"""A griffe extension: the reference shows what is public, under the names it is imported by.

The source is divided into rooms, and `minillmlib` re-exports from them. Here every public object
moves to the door that exports it, so that no path of a room is shown; signatures spell out the
type aliases that have no public name; a Struct gets the signature of its fields; and an enum lists
its values.
"""

import copy
import dataclasses
from collections.abc import Callable

import griffe

DOORS = ("", ".testing", ".local", ".httpx", ".mcp", ".dask", ".ray", ".otel")

# Internal classes in public signatures, and what a caller may take them for.
PUBLIC_FORMS = {
    "BatchApi": "object",
    "PartialJsonStream": "AsyncIterator[Any]",
    "Readable": "AsyncIterable",
    "_HttpxResponse": "HttpResponse",
    "_Model": "BaseModel",
}
# Methods of public classes that only the library uses.
PLUMBING = {
    "Bulk": ("new_pace",),
    "Budget": ("hold", "reserve", "enqueue", "new_reservation"),
    "Pace": (
        "new_request",
        "join",
        "serve",
        "leave",
        "settle",
        "refuse",
        "use_grants",
        "grant",
        "shortfall",
    ),
}


class InternalNameError(griffe.GriffeError):
    """A signature shows a class that has no public name: export it, or add it above."""


class PublicNames(griffe.Extension):
    """Rewrites the tree that griffe has read, once it is complete."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: object) -> None:
        """Move each public object to its door, and complete its signature."""
        if pkg.name != "minillmlib":
            return
        loader.expand_exports(pkg)
        loader.expand_wildcards(pkg)
        moved: dict[str, str] = {}
        public: list[griffe.Object] = []
        for door in (pkg[part[1:]] if part else pkg for part in DOORS):
            for name in map(str, door.exports or ()):
                member = door.members.get(name)
                if member is not None:
                    target = member.final_target if member.is_alias else member
                    moved[target.path] = f"{door.path}.{name}"
                    public.append(target)
        for target in public:
            complete(target, moved)
        for target in public:
            door, _, name = moved[target.path].rpartition(".")
            place = pkg if door == pkg.path else pkg[door.removeprefix(f"{pkg.path}.")]
            place.members[name] = target
            target.parent = place
        for alias in aliases_in(pkg):
            alias.target_path = moved.get(alias.target_path, alias.target_path)


def complete(target: griffe.Object, moved: dict[str, str]) -> None:
    """Give a public object a signature of public names."""
    if isinstance(target, griffe.Function):
        spell_out(target, moved)
    elif isinstance(target, griffe.Attribute):
        target.value = public_form(target.value, moved)
    elif isinstance(target, griffe.Class):
        complete_class(target, moved)
        for name, member in list(target.members.items()):
            if isinstance(member, griffe.Attribute):
                member.value = public_default(member.value, moved)
                if not name.startswith("_") and member.docstring is not None:
                    member.annotation = public_form(member.annotation, moved)
            elif isinstance(member, griffe.Function) and name == "__init__":
                try:
                    spell_out(member, moved)
                except InternalNameError:  # the library makes its objects, never the caller
                    del target.members[name]
            elif isinstance(member, griffe.Function) and not name.startswith("_"):
                spell_out(member, moved)


def complete_class(target: griffe.Class, moved: dict[str, str]) -> None:
    """Add what is not written in the class itself: fields, values, members of private bases."""
    lineage = [target, *(base for base in target.mro() if isinstance(base, griffe.Class))]
    is_struct = any("Struct" in str(base) for cls in lineage for base in cls.bases)
    if is_struct and "__init__" not in target.members:  # else it is written for type checkers
        add_init(target, lineage)
    if any("Enum" in path_of(base) for base in target.bases):
        list_values(target)
    for name in PLUMBING.get(target.name, ()):
        del target.members[name]
    for base in lineage[1:]:
        if base.path not in moved:  # a private base: its members are the class's own
            for name, member in base.members.items():
                if not name.startswith("_") and name not in target.members:
                    target.set_member(name, copy.copy(member))
    target.bases = [  # those that a caller can catch or import
        base for base in target.bases if path_of(base) in moved or path_of(base).endswith("Error")
    ]


def path_of(expression: griffe.Expr | str) -> str:
    """Return the path of a base class, without its type arguments."""
    if isinstance(expression, griffe.ExprSubscript):
        return path_of(expression.left)
    return expression.canonical_path if isinstance(expression, griffe.Expr) else expression


def arguments_of(base: griffe.Class, target: griffe.Class) -> dict[str, griffe.Expr | str]:
    """Return the types that a class gives the type variables of its base."""
    given = next((each for each in target.bases if path_of(each) == base.path), None)
    generic = next((each for each in base.bases if path_of(each) == "typing.Generic"), None)
    if not isinstance(given, griffe.ExprSubscript) or not isinstance(generic, griffe.ExprSubscript):
        return {}
    return dict(zip(map(str, parts_of(generic)), parts_of(given), strict=True))


def parts_of(subscript: griffe.ExprSubscript) -> list[griffe.Expr | str]:
    """Return the expressions in the brackets."""
    inner = subscript.slice
    return list(inner.elements) if isinstance(inner, griffe.ExprTuple) else [inner]


def add_init(target: griffe.Class, lineage: list[griffe.Class]) -> None:
    """Add the constructor that msgspec makes from the fields, those of bases first."""
    fields: dict[str, griffe.Attribute] = {}
    types: dict[str, griffe.Expr | str | None] = {}
    for cls in reversed(lineage):
        for name, member in cls.members.items():
            is_field = isinstance(member, griffe.Attribute) and "property" not in member.labels
            if is_field and member.annotation is not None and not name.startswith("_"):
                fields[name] = member
                types[name] = with_arguments(member.annotation, arguments_of(cls, target))
    is_keyword_only = any("kw_only" in cls.keywords for cls in lineage)
    kind = griffe.ParameterKind
    parameters = [
        griffe.Parameter("self", kind=kind.positional_or_keyword),
        *(
            griffe.Parameter(
                name,
                annotation=types[name],
                kind=kind.keyword_only if is_keyword_only else kind.positional_or_keyword,
                default=field.value,
            )
            for name, field in fields.items()
        ),
    ]
    target.set_member(
        "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
    )


def list_values(target: griffe.Class) -> None:
    """Add the values of an enum to its docstring."""
    values = [
        f"`{name}`" for name, member in target.members.items()
        if isinstance(member, griffe.Attribute) and not name.startswith("_")
    ]  # fmt: skip
    if target.docstring is not None:
        target.docstring.value += f"\n\nValues: {', '.join(values)}."


def spell_out(function: griffe.Function, moved: dict[str, str]) -> None:
    """Replace private aliases in the signature of a function."""
    function.returns = public_form(function.returns, moved)
    for parameter in function.parameters:
        parameter.annotation = public_form(parameter.annotation, moved)
        parameter.default = public_default(parameter.default, moved)
    for overload in function.overloads or ():
        spell_out(overload, moved)


def replace_names(
    expression: griffe.Expr | str | None,
    of: Callable[[griffe.ExprName], griffe.Expr | str],
) -> griffe.Expr | str | None:
    """Return an expression whose names are replaced by what `of` returns for them."""
    if isinstance(expression, griffe.ExprName):
        return of(expression)
    if not isinstance(expression, griffe.Expr):
        return expression
    changed = copy.copy(expression)
    for field in dataclasses.fields(expression):
        part = getattr(expression, field.name)
        if isinstance(part, griffe.Expr):
            setattr(changed, field.name, replace_names(part, of))
        elif isinstance(part, list):
            setattr(changed, field.name, [replace_names(each, of) for each in part])
    return changed


def with_arguments(
    annotation: griffe.Expr | str | None, arguments: dict[str, griffe.Expr | str]
) -> griffe.Expr | str | None:
    """Return an annotation with the values of its type variables."""
    return replace_names(annotation, lambda name: arguments.get(name.name, name))


def public_form(
    annotation: griffe.Expr | str | None, moved: dict[str, str]
) -> griffe.Expr | str | None:
    """Return an annotation of public names: a private alias is replaced by its value."""

    def form(name: griffe.ExprName) -> griffe.Expr | str:
        target = internal(name, moved)
        if isinstance(target, griffe.Attribute) and "TypeAlias" in str(target.annotation):
            return public_form(target.value, moved) or name
        if isinstance(target, griffe.Class) and target.name not in PUBLIC_FORMS:
            raise InternalNameError(f"{target.path} is in a public signature")
        return name if target is None else PUBLIC_FORMS.get(target.name, name)

    return replace_names(annotation, form)


def public_default(
    value: griffe.Expr | str | None, moved: dict[str, str]
) -> griffe.Expr | str | None:
    """Return a value as written, a private constant's literal, or "..." for anything internal."""
    if isinstance(value, griffe.ExprName):
        constant = internal(value, moved)
        is_literal = isinstance(constant, griffe.Attribute) and isinstance(constant.value, str)
        return value if constant is None else constant.value if is_literal else "..."
    found: list[griffe.Object] = []

    def note(name: griffe.ExprName) -> griffe.ExprName:
        found.extend(filter(None, [internal(name, moved)]))
        return name

    replace_names(value, note)
    return "..." if found else value


def internal(name: griffe.ExprName, moved: dict[str, str]) -> griffe.Object | None:
    """Return the object of this library that a name stands for, unless it is public."""
    path = name.canonical_path
    is_ours = path.startswith("minillmlib.") and "(" not in path  # as that of a parameter has
    if not is_ours or any(f"{path}.".startswith(f"{public}.") for public in moved):
        return None
    scope = name.parent
    while scope is not None and scope.parent is not None:
        scope = scope.parent  # the package
    return scope[path.removeprefix("minillmlib.")]


def aliases_in(module: griffe.Module) -> list[griffe.Alias]:
    """List every import of every module below."""
    found = []
    for member in module.members.values():
        if member.is_alias:
            found.append(member)
        elif isinstance(member, griffe.Module):
            found += aliases_in(member)
    return found
