// Attention within segments for heads as wide as those of the released vision towers; see `varlen.cuh`.
#include "attention/varlen.cuh"

// hot: attention_windows_80 attention_frames_80
VARLEN(80)
