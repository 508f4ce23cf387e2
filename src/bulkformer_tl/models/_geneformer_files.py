"""Files of Geneformer: Hugging Face folders and the dictionaries that go with them."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bulkformer_tl._dictionaries import write_dictionary
from bulkformer_tl._optional import require
from bulkformer_tl._rank_vocabulary import RankVocabulary
from bulkformer_tl._settings import settings
from bulkformer_tl.models._device import choose_device
from bulkformer_tl.models._files import read_json, read_tensors, require_file, sha256
from bulkformer_tl.models._geneformer import Geneformer

if TYPE_CHECKING:
    from bulkformer_tl._rank_vocabulary import Medians, Renamed, Tokens

#: How a source says that it is one of these.
PREFIX = "geneformer:"
EXTRA = "geneformer"

WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: How a model of the user's own was trained.
_TRAINING = "training.json"
#: Names under which dictionaries are published, and under which we write them.
_NAMES = {
    "tokens": ("token_dictionary*", "token_dictionary.json"),
    "medians": ("gene_median_dictionary*", "gene_median_dictionary.json"),
    "renamed": ("ensembl_mapping_dict*", "ensembl_mapping_dictionary.json"),
}
#: Where dictionaries stand from the model's folder, in the published repository.
_PLACES = (".", "../geneformer", "../geneformer/gene_dictionaries_30m", "..")

#: What of a configuration is read; the rest may name code.
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
#: Tensors that files may lack, because they are others under a second name, or hold although nothing needs them.
_TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids"}

#: Weights of one scale, which rows have to consist of in 4 bits on the CPU.
_BLOCK = 64

_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w.-]+))?(?:@(?P<revision>\w+))?")


def load_geneformer(
    source: str | Path,
    *,
    tokens: Tokens | None = None,
    medians: Medians | None = None,
    renamed: Renamed | None = None,
    emb_layer: int = -1,
    quantize: Literal["8bit", "4bit"] | None = None,
    device: str | torch.device | None = None,
) -> Geneformer:
    """Load a pretrained Geneformer from a folder, or from the hub at a fixed revision.

    Only ``config.json``, ``model.safetensors`` and dictionaries are read; no code of the source is run. Needs the extra
    ``geneformer``.

    Parameters
    ----------
    source
        A folder with ``config.json`` and ``model.safetensors``, or ``"owner/repository/folder@revision"`` with the full
        commit, for example ``"ctheodoris/Geneformer/Geneformer-V2-104M@<commit>"``; files from there are kept in the
        cache.
    tokens
        Gene and specials to token: a mapping or a ``.json`` or ``.pkl`` file. ``None`` looks in the folder, and where
        the published repository has them beside it, for the dictionary with as many entries as the network's table.
    medians
        Gene to median. ``None`` takes the one beside the tokens.
    renamed
        Retired identifiers to present ones. ``None`` takes the one beside the tokens, if there is one.
    emb_layer
        Which layer vectors come from: 0 the last, -1 the one before it, as published.
    quantize
        Hold the weights of linear layers in 8 or 4 bits, by bitsandbytes, on CUDA or, slowly, on the CPU.
    device
        Torch device; ``None`` takes :attr:`bulkformer_tl.settings.device`.

    Returns
    -------
    The model.

    Raises
    ------
    ImportError
        If transformers, or bitsandbytes where it is needed, is not installed.
    FileNotFoundError
        If a file is absent.
    ValueError
        If files are damaged or do not belong together, a revision is absent, or ``quantize`` is impossible here.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> model = bf.models.load_geneformer("Geneformer/Geneformer-V2-104M")  # doctest: +SKIP
    >>> bf.tl.embed(adata, model=model, layer="counts")  # doctest: +SKIP
    """
    require("transformers", extra=EXTRA, purpose="Geneformer")
    place = torch.device(choose_device(device))
    if quantize is not None:
        _check_quantize(quantize, place)
    folder = _folder(source)
    config = _read_config(folder)
    weights = require_file(folder / WEIGHTS, "the weights of the model", "its repository, as safetensors")
    dictionary = _dictionary(folder, config, tokens, medians, renamed)
    network = _build(config, weights) if quantize is None else _build_quantized(folder, config, quantize, place)
    model = Geneformer(
        network,
        dictionary,
        name=f"{PREFIX}{folder.resolve().name}",
        emb_layer=emb_layer,
        checksum=sha256(weights),
        provenance={"source": str(source), "quantize": quantize or "", **_training(folder)},
    )
    return model.to(device)


def is_geneformer(folder: Path) -> bool:
    """Whether a folder holds a BERT of transformers, and no bundle."""
    path = folder / CONFIG
    # the manifest of a bundle is compared before anything in it is read
    return path.is_file() and not (folder / "manifest.json").exists() and read_json(path).get("model_type") == "bert"


def write_geneformer(model: Geneformer, folder: Path) -> None:
    """Write a model as :func:`load_geneformer` reads it, dictionaries as JSON.

    Parameters
    ----------
    model
        A loaded model.
    folder
        An empty folder.

    Raises
    ------
    ValueError
        If the model was loaded in 8 or 4 bits.
    """
    if model.provenance.get("quantize"):
        message = f"{model.name} was loaded in {model.provenance['quantize']}; load it without quantize= to write it"
        raise ValueError(message)
    from safetensors.torch import save_file

    state = model.network.state_dict()
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name not in _TIED},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    config |= {name: getattr(model.config, name) for name in _FIELDS}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if "training" in model.provenance:
        stated = json.dumps({"training": model.provenance["training"]}, indent=2)
        (folder / _TRAINING).write_text(stated + "\n", encoding="utf-8")
    dictionary = model.dictionary
    medians = dict(zip(dictionary.ids.tolist(), dictionary.medians.tolist(), strict=True))
    write_dictionary(folder / _NAMES["tokens"][1], dictionary.numbered)
    write_dictionary(folder / _NAMES["medians"][1], medians)
    if dictionary.renamed is not None:
        write_dictionary(folder / _NAMES["renamed"][1], dictionary.renamed)


def _folder(source: str | Path) -> Path:
    """Return a folder on this machine."""
    path = Path(source)
    if path.is_dir():
        return path
    found = _HUB.fullmatch(str(source))
    if found is None or found["folder"] is None or ".." in str(source):
        message = (
            f"there is no folder {source}; a model of the hub is called 'owner/repository/folder@revision', such as "
            "'ctheodoris/Geneformer/Geneformer-V2-104M@<commit>'"
        )
        raise FileNotFoundError(message)
    if found["revision"] is None or not re.fullmatch(r"[0-9a-f]{40}", found["revision"]):
        message = (
            f"{source} names no fixed revision; add the full commit that you want, '{str(source).split('@')[0]}@<40 "
            "hexadecimal digits>', so that the same files come tomorrow"
        )
        raise ValueError(message)
    import huggingface_hub

    patterns = [f"{found['folder']}/{name}" for name in (WEIGHTS, CONFIG)]
    patterns += [f"geneformer/{pattern}.pkl" for pattern, _ in _NAMES.values()]
    patterns += [f"geneformer/gene_dictionaries_30m/{pattern}.pkl" for pattern, _ in _NAMES.values()]
    place = huggingface_hub.snapshot_download(
        found["repository"],
        revision=found["revision"],
        allow_patterns=patterns,
        cache_dir=settings.cache_dir / "hub",
    )
    return Path(place) / found["folder"]


def _training(folder: Path) -> dict[str, Any]:
    """Return how a model was trained, if it says so."""
    path = folder / _TRAINING
    stated = read_json(path) if path.is_file() else {}
    return {"training": stated["training"]} if isinstance(stated.get("training"), dict) else {}


def _read_config(folder: Path) -> dict[str, Any]:
    stated = read_json(require_file(folder / CONFIG, "the configuration of the model"))
    if stated.get("model_type") != "bert":
        message = f"{folder / CONFIG} describes a {stated.get('model_type')!r}; Geneformer is a 'bert'"
        raise ValueError(message)
    absent = [name for name in ("vocab_size", "hidden_size", "max_position_embeddings") if name not in stated]
    if absent:
        message = f"{folder / CONFIG} does not state {absent}"
        raise ValueError(message)
    return {name: stated[name] for name in _FIELDS if name in stated}


def _build(config: dict[str, Any], weights: Path) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    # the random weights that a new network starts from are replaced, and nobody's random state is touched
    with torch.random.fork_rng(devices=[]):
        network = BertForMaskedLM(BertConfig(**config, attn_implementation="sdpa"))
    try:
        missing, unexpected = network.load_state_dict(read_tensors(weights), strict=False)
    except RuntimeError as error:
        message = f"{weights} does not fit {CONFIG}: {str(error).splitlines()[1].strip()}"
        raise ValueError(message) from error
    wrong = sorted({*missing, *unexpected} - _TIED)
    if wrong:
        message = (
            f"{weights} is not a masked-gene model: {len(wrong)} tensors are absent or unknown, such as {wrong[0]}"
        )
        raise ValueError(message)
    network.tie_weights()
    return network.float()


def _check_quantize(quantize: str, device: torch.device) -> None:
    if quantize not in {"8bit", "4bit"}:
        message = f"quantize must be '8bit', '4bit' or None, found {quantize!r}"
        raise ValueError(message)
    if device.type not in {"cpu", "cuda"}:
        message = f"quantize={quantize!r} works on 'cuda' and 'cpu', and the device is {str(device)!r}; leave it out"
        raise ValueError(message)
    require("bitsandbytes", extra="quantized", purpose=f"quantize={quantize!r}")
    require("accelerate", extra="quantized", purpose=f"quantize={quantize!r}")


def _build_quantized(folder: Path, config: dict[str, Any], quantize: str, device: torch.device) -> Any:
    from transformers import BertConfig, BertForMaskedLM, BitsAndBytesConfig

    widths = {name: config[name] for name in ("hidden_size", "intermediate_size")}
    if quantize == "4bit" and device.type == "cpu" and any(width % _BLOCK for width in widths.values()):
        message = f"on the CPU quantize='4bit' needs widths that {_BLOCK} divides, found {widths}; take '8bit'"
        raise ValueError(message)
    # it says of each product of each layer that it is made in float16
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    network = BertForMaskedLM.from_pretrained(
        folder,
        config=BertConfig(**config),
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        quantization_config=BitsAndBytesConfig(load_in_8bit=quantize == "8bit", load_in_4bit=quantize == "4bit"),
        device_map={"": str(device)},
    )
    for module in network.modules():
        # some processors would repack weights at the first sample, after which no gradients go through them
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return network


def _dictionary(
    folder: Path,
    config: dict[str, Any],
    tokens: Tokens | None,
    medians: Medians | None,
    renamed: Renamed | None,
) -> RankVocabulary:
    if tokens is not None and medians is not None:
        return RankVocabulary.of(medians, tokens, renamed)
    fitting: list[tuple[Path, RankVocabulary]] = []
    sizes: dict[str, int] = {}
    for place in dict.fromkeys((folder / place).resolve() for place in _PLACES):
        found = {role: _files(place, pattern) for role, (pattern, _) in _NAMES.items()}
        for own in found["tokens"] if tokens is None else [tokens]:
            if len(found["medians"]) != 1 and medians is None:
                continue
            vocabulary = RankVocabulary.of(
                found["medians"][0] if medians is None else medians,
                own,
                next(iter(found["renamed"]), None) if renamed is None else renamed,
            )
            sizes[str(own)] = len(vocabulary.numbered)
            if len(vocabulary.numbered) == config["vocab_size"]:
                fitting.append((place, vocabulary))
        if fitting:
            break
    if len(fitting) != 1:
        seen = f"; those found have {sizes}" if sizes else ""
        message = (
            f"{len(fitting) or 'no'} token dictionaries with {config['vocab_size']:,} entries, as many as the table of "
            f"the network, stand with one dictionary of medians in or beside {folder}{seen}. Pass those that were "
            "published with these weights: bf.models.load_geneformer(folder, tokens=..., medians=..., renamed=...)"
        )
        raise ValueError(message)
    return fitting[0][1]


def _files(place: Path, pattern: str) -> list[Path]:
    """Return dictionaries in a folder; of one that is there twice, the JSON."""
    found = {path.stem: path for suffix in (".pkl", ".json") for path in sorted(place.glob(pattern + suffix))}
    return list(found.values())
