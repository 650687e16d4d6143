"""Which materializer saves a type, and which loads what is stored; the policy on pickle; saving and loading a value.

Types are known by qualified name, so that no library is imported before a value of its arrives. A name in the table is
either a class's full name (``"my_package.frames.Frame"``) or its top-level package and class name
(``"pandas.DataFrame"``), which holds wherever inside the package a release keeps the class.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_origin
from weakref import ref

from ..core.errors import MaterializationError, MissingExtra, PickleNotAllowed, TailraceError, did_you_mean
from ..core.typenames import type_name
from .base import Gatherer, Materializer, Spec, Unsavable
from .files import FileReader, FileWriter
from .tagged import is_plain, readable

__all__ = [
    "Choice",
    "MaterializerRegistry",
    "Saved",
    "choose",
    "default_registry",
    "load",
    "materializer_for",
    "save",
]

ENTRY_POINTS = "tailrace.materializers"
"""The entry point group: the name is a qualified type name, the value a materializer class."""

_BUILT_IN = {
    "plain": ".plain:PlainMaterializer",
    "numpy": ".numpy:NumpyMaterializer",
    "pandas": ".pandas:PandasMaterializer",
    "arrow": ".arrow:ArrowMaterializer",
    "polars": ".polars:PolarsMaterializer",
    "scipy": ".scipy:ScipyMaterializer",
    "xarray": ".xarray:XarrayMaterializer",
    "sklearn": ".sklearn:SklearnMaterializer",
    "xgboost": ".xgboost:XgboostMaterializer",
    "lightgbm": ".lightgbm:LightgbmMaterializer",
    "catboost": ".catboost:CatboostMaterializer",
    "onnx": ".onnx:OnnxMaterializer",
    "torch": ".torch:TorchMaterializer",
    "transformers": ".transformers:TransformersMaterializer",
    "datasets": ".datasets:DatasetsMaterializer",
    "keras": ".keras:KerasMaterializer",
    "tensorflow": ".tensorflow:TensorflowMaterializer",
    "tf.data": ".tensorflow:TfDataMaterializer",
    "savedmodel": ".savedmodel:SavedModelMaterializer",
    "pillow": ".pil:PillowMaterializer",
    "matplotlib": ".matplotlib:MatplotlibMaterializer",
    "plotly": ".plotly:PlotlyMaterializer",
    "iterator": ".iterator:IteratorMaterializer",
    "path": ".paths:PathMaterializer",
    "document": ".document:DocumentMaterializer",
    "asset": ".asset:AssetMaterializer",
    "pickle": ".pickle:PickleMaterializer",
}

_TYPES = {
    "plain": """
        builtins.NoneType builtins.bool builtins.int builtins.float builtins.complex builtins.str builtins.bytes
        builtins.bytearray builtins.list builtins.tuple builtins.dict builtins.set builtins.frozenset builtins.range
        builtins.slice builtins.ellipsis datetime.date datetime.time datetime.timedelta datetime.tzinfo decimal.Decimal
        fractions.Fraction uuid.UUID enum.Enum collections.deque pathlib.PurePath pydantic.BaseModel numpy.generic
        pandas.NAType pandas.Period pandas.Interval
    """,
    "numpy": "numpy.ndarray",
    "pandas": "pandas.DataFrame pandas.Series pandas.Index",
    "arrow": "pyarrow.Table pyarrow.RecordBatch pyarrow.Array pyarrow.ChunkedArray pyarrow.Schema pyarrow.Scalar",
    "polars": "polars.DataFrame polars.Series polars.LazyFrame",
    "scipy": "scipy.sparray scipy.spmatrix scipy.dok_array scipy.dok_matrix",  # the last two are dicts first
    "xarray": "xarray.Dataset xarray.DataArray",
    "sklearn": "sklearn.BaseEstimator",
    "xgboost": "xgboost.Booster xgboost.XGBModel",
    "lightgbm": "lightgbm.Booster lightgbm.LGBMModel",
    "catboost": "catboost.CatBoost",
    "onnx": "onnx.ModelProto",
    "torch": """
        torch.Tensor torch.Module torch.Optimizer torch.LRScheduler torch.ReduceLROnPlateau torch.Size torch.dtype
        torch.device torch.TensorDataset torch.Subset torch.ConcatDataset torch.StackDataset torch.DataLoader
        torch.ExportedProgram torch.GradScaler torch.Generator torch.jit.torch.jit.ScriptFunction
    """,
    "transformers": """
        transformers.PreTrainedModel transformers.PreTrainedTokenizerBase transformers.PreTrainedConfig
        transformers.PretrainedConfig transformers.GenerationConfig transformers.ProcessorMixin
        transformers.ImageProcessingMixin transformers.FeatureExtractionMixin transformers.Pipeline
        transformers.BatchEncoding transformers.ModelOutput
    """,
    "datasets": """
        datasets.Dataset datasets.DatasetDict datasets.IterableDataset datasets.IterableDatasetDict datasets.Column
    """,  # two are dicts first
    "keras": "keras.Model keras.Layer",
    "tensorflow": "tensorflow.Tensor tensorflow.Variable tensorflow.RaggedTensor tensorflow.SparseTensor",
    "tf.data": "tensorflow.DatasetV2",
    "savedmodel": "tensorflow.Module tensorflow.AutoTrackable",
    "pillow": "PIL.Image.Image",
    "matplotlib": "matplotlib.Figure",
    "plotly": "plotly.BaseFigure",
    "iterator": """
        builtins.generator builtins.map builtins.filter builtins.zip builtins.enumerate builtins.reversed
        builtins.list_iterator builtins.list_reverseiterator builtins.tuple_iterator builtins.set_iterator
        builtins.range_iterator builtins.str_ascii_iterator builtins.str_iterator builtins.dict_keyiterator
        builtins.dict_valueiterator builtins.dict_itemiterator itertools.accumulate itertools.batched itertools.chain
        itertools.combinations itertools.combinations_with_replacement itertools.compress itertools.dropwhile
        itertools.filterfalse itertools.groupby itertools.islice itertools.pairwise itertools.permutations
        itertools.product itertools.starmap itertools.takewhile itertools.zip_longest
    """,
    "path": "pathlib.Path",
    "document": "tailrace.core.documents.Document",
    "asset": "tailrace.core.asset.Asset",
}

_ONCE = {"async_generator", "coroutine"}


@dataclass(frozen=True, slots=True)
class Saved:
    """What the manifest records of a saved value. ``length`` is the number of items of a list or tuple."""

    materializer: str
    materializer_version: int
    spec: Spec
    metadata: dict[str, Any] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which materializer a type gets, and why. ``materializer`` is ``None`` when only pickle would do."""

    materializer: str | None
    reason: str


class MaterializerRegistry:
    """Materializers by type and by name. A new one knows the built-in ones and nothing else.

    ``entry_points`` says whether installed packages are asked for types that nothing here matches.
    """

    def __init__(self, *, entry_points: bool = True) -> None:
        self._named: dict[str, Materializer | str] = dict(_BUILT_IN)
        self._types: dict[str, str] = {name: owner for owner, names in _TYPES.items() for name in names.split()}
        self._cache: dict[ref[type], Materializer | None] = {}
        self._installed: dict[str, Any] | None = None if entry_points else {}

    # ---- registration

    def register(
        self, kind: type | str, materializer: Materializer | type[Materializer], *, replace: bool = False
    ) -> None:
        """Let a materializer take the values of a type (or of the type of this name) and of its sub-classes.

        Raises ValueError when the type, or the materializer's name, is taken by another and ``replace`` is not given.
        The same definition again (a module that is executed twice) replaces itself.
        """
        made: Materializer = materializer() if isinstance(materializer, type) else materializer
        key = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        owner = self._types.get(key) or (None if isinstance(kind, str) else self._types.get(_short(kind)))
        if owner is not None and owner != made.name and not replace:
            raise ValueError(
                f"The type {key!r} has the materializer {owner!r}. Pass replace=True to give it to {made.name!r}."
            )
        known = self._named.get(made.name)
        if known is not None and _definition(known) != _definition(made) and not replace:
            raise ValueError(
                f"The name {made.name!r} is taken by another materializer. Pass replace=True, or choose another name."
            )
        self._named[made.name] = made
        self._types[key] = made.name
        self._cache.clear()

    # ---- dispatch

    def for_type(self, cls: type) -> Materializer | None:
        """The materializer of the nearest base of a class that has one; ``None`` when there is none."""
        try:
            return self._cache[ref(cls)]
        except KeyError:
            found = self._find(cls)
            self._cache[ref(cls, self._forget)] = found
            return found

    def _forget(self, dead: ref[type]) -> None:
        self._cache.pop(dead, None)

    def _find(self, cls: type) -> Materializer | None:
        base, name = self._match(cls)
        if base is not cls and name != "plain" and (base is None or _top(base) != _top(cls)):
            point = self._entry_point(cls)
            if point:
                return self._adopt(point)
        return self.by_name(name) if name else None

    def _match(self, cls: type) -> tuple[type | None, str | None]:
        for base in cls.__mro__:
            name = self._types.get(f"{base.__module__}.{base.__qualname__}") or self._types.get(_short(base))
            if name:
                return base, name
        fields = hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__attrs_attrs__")
        return (cls, "plain") if fields else (None, None)

    def _entry_points(self) -> dict[str, Any]:
        if self._installed is None:
            from importlib.metadata import entry_points

            self._installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        return self._installed

    def _entry_point(self, cls: type) -> Any:
        installed = self._entry_points()
        names = ((f"{base.__module__}.{base.__qualname__}", _short(base)) for base in cls.__mro__)
        return next((installed[name] for both in names for name in both if name in installed), None)

    def _adopt(self, point: Any) -> Materializer:
        loaded = point.load()
        made: Materializer = loaded() if isinstance(loaded, type) else loaded
        self._named.setdefault(made.name, made)
        return made

    def by_name(self, name: str) -> Materializer:
        """The materializer of this name, from what is registered or installed: a stored name never imports anything.

        Raises MaterializationError, listing the known names, when there is none, and MissingExtra when it needs a
        library that is not installed.
        """
        known = self._named.get(name)
        if known is None:
            for point in self._entry_points().values():
                self._adopt(point)
            known = self._named.get(name)
        if known is None:
            raise MaterializationError(
                f"No materializer is named {name!r}.{did_you_mean(name, self._named)} "
                "Install the package that provides it, or import the module that registers it with @materializer_for."
            )
        if isinstance(known, str):
            known = self._named[name] = _built_in(name, known)
        return known

    def choose(self, kind: Any) -> Choice:
        """Which materializer the values of a type will get: a class, a generic alias, or a class's qualified name.

        Imports nothing: by name, a class of a module that is not imported yet is decided by the name alone.
        """
        if isinstance(kind, str):
            module, _, name = kind.rpartition(".")
            cls = getattr(sys.modules.get(module or "builtins"), name, None)
            if not isinstance(cls, type):
                return self._choose_by_name(kind)
            kind = cls
        cls = get_origin(kind) or kind
        if not isinstance(cls, type) or cls in (Any, object):
            return Choice(None, "decided by the value that arrives")
        base, owner = self._match(cls)
        if base is not None:
            return Choice(owner, "registered for this type" if base is cls else f"registered for {type_name(base)}")
        point = self._entry_point(cls)
        if point:
            return Choice(point.value, "installed for this type or a base of it")
        return Choice(None, "nothing is registered for this type; only pickle would do")

    def _choose_by_name(self, kind: str) -> Choice:
        top = kind.partition(".")[0]
        owner = self._types.get(kind) or self._types.get(f"{top}.{kind.rpartition('.')[2]}")
        if owner:
            return Choice(owner, "registered for this type")
        family = {name.partition(".")[0]: owner for name, owner in self._types.items()}.get(top, "plain")
        if family != "plain":
            return Choice(family, f"the usual one of {top}; decided by the value that arrives")
        return Choice(None, "decided by the value that arrives")

    # ---- saving and loading

    def save(self, value: Any, files: FileWriter, *, label: str = "value") -> Saved:
        """Write a value's files and say what the manifest must record. ``label`` names the value in messages.

        Raises PickleNotAllowed when only pickle would do and ``files.allow_pickle`` is ``"never"``, and
        MaterializationError when nothing takes the value. What was written for it is then gone again.
        """
        materializer, spec = self._store(value, files, label)
        metadata = readable({"type": type_name(type(value)), **materializer.describe(value)})
        length = len(value) if isinstance(value, (list, tuple)) else None
        return Saved(materializer.name, materializer.version, spec, metadata, length)

    def _store(self, value: Any, files: FileWriter, label: str) -> tuple[Materializer, Spec]:
        chosen, reason = self.for_type(type(value)), "no materializer is registered for it"
        if chosen is not None and chosen.executes_code:
            reason = f"{chosen.name} takes it, and executes code on loading"
            reason += getattr(chosen, "instead", "")
        elif chosen is not None:
            try:
                return chosen, self._save_by(chosen, value, files, label)
            except MaterializationError as error:
                files.discard()
                if isinstance(error, PickleNotAllowed) or getattr(error, "located", False):
                    raise  # a member's, which names the place
                if isinstance(error, Unsavable):
                    raise Unsavable(f"{label}: {error}", located=True) from error
                reason = f"{chosen.name}: {error}"
                chosen = None
        return self._store_by_code(chosen, value, files, label, reason)

    def _store_by_code(
        self, chosen: Materializer | None, value: Any, files: FileWriter, label: str, reason: str
    ) -> tuple[Materializer, Spec]:
        """With a format that executes code on loading, if the policy allows that."""
        kind = type_name(type(value))
        if kind in _ONCE:
            raise Unsavable(f"{label} is a {kind}, whose items exist only once. Return a list of them.", located=True)
        problem = f"{label} is a {kind}, which no safe format holds ({reason})"
        if files.allow_pickle == "never":
            raise PickleNotAllowed(
                f"{problem}, and allow_pickle is 'never', so it is not pickled. Set `allow_pickle: fallback` in the "
                "stack, or register a materializer for the type with @materializer_for."
            )
        chosen = chosen or self.by_name("pickle")
        try:
            spec = self._save_by(chosen, value, files, label)
        except MaterializationError as error:
            files.discard()
            raise Unsavable(
                f"{problem}, and {chosen.name} failed (allow_pickle is {files.allow_pickle!r}): {error}. "
                "Return the data it holds instead, or register a materializer for the type with @materializer_for.",
                located=True,
            ) from error
        if files.allow_pickle != "always":
            warnings.warn(f"{problem}. It is stored by {chosen.name}: loading it executes code.", stacklevel=2)
        return chosen, spec

    def _save_by(self, chosen: Materializer, value: Any, files: FileWriter, label: str) -> Spec:
        gathered: dict[str, Gatherer] = {}

        def save_member(member: Any, where: str, folder: FileWriter) -> dict[str, Any]:
            node = self._gather(member, where, gathered)
            if node is not None:
                return node
            inner, spec = self._store(member, folder, f"{label} at {where}")
            return {"materializer": inner.name, "version": inner.version, "spec": spec}

        save_with = getattr(chosen, "save_with", None)  # a Container's; isinstance of a Protocol takes microseconds
        spec: Spec = save_with(value, files, save_member) if save_with else chosen.save(value, files)
        for name, gatherer in gathered.items():
            gatherer.write(files.within(name))
        if not is_plain(spec, tags=True):
            raise MaterializationError(f"the spec of the materializer {chosen.name!r} is not plain JSON: {spec!r}")
        return spec

    def _gather(self, member: Any, where: str, gathered: dict[str, Gatherer]) -> dict[str, Any] | None:
        """Hand a member to those of its kind; ``None`` if it is saved by itself, and says itself why it cannot be."""
        inner = self.for_type(type(member))
        gather = getattr(inner, "gather", None)  # a Gathering's
        if inner is None or gather is None:
            return None
        try:
            node = (gathered.get(inner.name) or gathered.setdefault(inner.name, gather())).add(member, where)
        except MaterializationError:
            return None
        return {"materializer": inner.name, "version": inner.version, "gathered": node}

    def load(
        self,
        materializer: str,
        version: int,
        files: FileReader,
        spec: Mapping[str, Any],
        columns: Sequence[Any] | None = None,
    ) -> Any:
        """The value that :meth:`save` wrote, or these columns of it.

        Raises MaterializationError, naming the artifact, when it cannot be made or has no such columns. A format that
        executes code is refused before its file is opened, unless ``files.allow_pickle`` allows it.
        """
        chosen = self._to_load(materializer, version, files)
        scattered: dict[str, Callable[[Any], Any]] = {}

        def load_member(member: Mapping[str, Any], folder: FileReader) -> Any:
            name = member["materializer"]
            if "gathered" in member:
                if name not in scattered:
                    inner: Any = self._to_load(name, member["version"], files)
                    scattered[name] = inner.scatter(files.within(name))
                return scattered[name](member["gathered"])
            return self.load(member["materializer"], member["version"], folder, member["spec"])

        load_with = getattr(chosen, "load_with", None)
        try:
            if columns is not None:
                return _load_columns(chosen, files, spec, columns)
            return load_with(files, spec, load_member) if load_with else chosen.load(files, spec)
        except MaterializationError as error:
            if files.label in str(error):
                raise
            raise MaterializationError(f"The artifact {files.label} cannot be loaded: {error}") from error
        except TailraceError:
            raise
        except Exception as error:
            raise MaterializationError(
                f"The artifact {files.label} cannot be loaded by {materializer!r}: {type(error).__name__}: {error}"
            ) from error

    def _to_load(self, materializer: str, version: int, files: FileReader) -> Materializer:
        """The materializer of stored files, if it may open them and knows their version."""
        chosen = self.by_name(materializer)
        if version > chosen.version:
            raise MaterializationError(
                f"The artifact {files.label} was written by version {version} of the materializer {materializer!r}; "
                f"here is version {chosen.version}. Upgrade the package that provides it."
            )
        if chosen.executes_code and files.allow_pickle == "never":
            raise PickleNotAllowed(
                f"Loading the artifact {files.label} ({materializer}) executes code, and allow_pickle is 'never'. If "
                "you trust who wrote it, set `allow_pickle: fallback` in the stack; else save it in a safe format."
            )
        return chosen


def _load_columns(chosen: Materializer, files: FileReader, spec: Mapping[str, Any], columns: Sequence[Any]) -> Any:
    load_columns = getattr(chosen, "load_columns", None)  # a Tabular's
    if load_columns is None:
        raise MaterializationError(f"values of the materializer {chosen.name!r} have no columns to choose from")
    return load_columns(files, spec, columns)


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _short(cls: type) -> str:
    return f"{_top(cls)}.{cls.__qualname__}"


def _built_in(name: str, place: str) -> Materializer:
    module, _, attribute = place.partition(":")
    try:
        made: Materializer = getattr(importlib.import_module(module, __package__), attribute)()
    except ModuleNotFoundError as error:
        raise MissingExtra(f"The materializer {name!r}", name, error.name or "") from error
    return made


def _definition(known: Materializer | str) -> str:
    if isinstance(known, str):
        return f"{__package__}{known.replace(':', '.')}"
    return f"{type(known).__module__}.{type(known).__qualname__}"


default_registry = MaterializerRegistry()
"""The registry that everything uses unless given another."""

M = TypeVar("M", bound=type[Any])


def materializer_for(*kinds: type | str, replace: bool = False) -> Callable[[M], M]:
    """Register a class as the materializer of types: ``@materializer_for(MyType)``, or by qualified name as str.

    The class follows :class:`~tailrace.materializers.base.Materializer` and is made without arguments;
    ``tailrace.materializers.testing`` has the battery that proves one.
    """

    def decorate(cls: M) -> M:
        for kind in kinds:
            default_registry.register(kind, cls, replace=replace)
        return cls

    return decorate


def save(value: Any, files: FileWriter, *, label: str = "value") -> Saved:
    """:meth:`MaterializerRegistry.save` of the default registry."""
    return default_registry.save(value, files, label=label)


def load(
    materializer: str,
    version: int,
    files: FileReader,
    spec: Mapping[str, Any],
    columns: Sequence[Any] | None = None,
) -> Any:
    """:meth:`MaterializerRegistry.load` of the default registry."""
    return default_registry.load(materializer, version, files, spec, columns)


def choose(kind: Any) -> Choice:
    """:meth:`MaterializerRegistry.choose` of the default registry."""
    return default_registry.choose(kind)
