"""Faces: packs of models, what they see in an image, and the embeddings that tell people apart."""

from data_prep.faces.analyser import FaceAnalyser, MeasuredFace, SeenFace, analyser_for
from data_prep.faces.packs import PACKS, PackSpec, find_pack
from data_prep.faces.recogniser import Recogniser, embed_crops

__all__ = [
    "PACKS",
    "FaceAnalyser",
    "MeasuredFace",
    "PackSpec",
    "Recogniser",
    "SeenFace",
    "analyser_for",
    "embed_crops",
    "find_pack",
]
