// Causal attention in tiles for heads as wide as those of the released models; see `causal.cuh`.
#include "attention/causal.cuh"

// hot: attention_causal_128
CAUSAL(128)
