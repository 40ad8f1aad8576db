attn.module {
  attn.main {
    #0 = abs(sub(q, k))
    %0 = attn.local {w = 64 : index}
    %1 = attn.local {w = 128 : index}
    %2 = attn.none
    %3 = attn.union %0, %1, %2
    %4 = attn.strided {s = 2 : index}
    %5 = attn.complement %4
    %6 = attn.causal
    %7 = attn.complement %6
    %8 = attn.intersection %6, %7
    %9 = attn.union %5, %8
    %10 = attn.complement %9
    %11 = attn.intersection %3, %10
    %12 = attn.rows {tokens = tokens<0>}
    %13 = attn.transpose %12
    %14 = attn.shift %13 {by = 1 : index}
    %15 = attn.logsparse
    %16 = attn.where {keep = lt(add(floordiv(#0, 4), mod(#0, 4)), 5)}
    %17 = attn.intersection %15, %16
    %18 = attn.blocks %17 {size = 2 : index}
    %19 = attn.symmetric_difference %11, %14, %18
    attn.return %19
  }
}
