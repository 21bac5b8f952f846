// Causal attention of few queries for heads as wide as those of the released models; see `decode.cuh`.
#include "attention/decode.cuh"

// hot: attention_split_128_16 attention_split_128_32 attention_combine_128
DECODE(128)
