attn.module {
  attn.input @doc
  attn.main {
    %0 = attn.same {input = "doc"}
    %1 = attn.local {left = 7 : index, right = 0 : index}
    %2 = attn.causal
    %3 = attn.where {keep = and(eq(mod(sub(q, k), 2), 0), lt(k, 8))}
    %4 = attn.where {keep = and(eq(mod(sub(q, k), 3), 0), lt(k, 3))}
    %5 = attn.columns {tokens = tokens<0, -1, _:_:5>}
    %6 = attn.union %3, %4, %5
    %7 = attn.intersection %2, %6
    %8 = attn.union %1, %7
    %9 = attn.intersection %0, %8
    attn.return %9
  }
}
