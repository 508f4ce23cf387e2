"""What is known of each published model, as far as primary sources state it, and its files on this machine."""

from bulkformer_tl.registry._download import FileCheck, download, verify
from bulkformer_tl.registry._models import ModelInfo, available, info, locate, place
from bulkformer_tl.registry._transfer import DownloadError

__all__ = ["DownloadError", "FileCheck", "ModelInfo", "available", "download", "info", "locate", "place", "verify"]
