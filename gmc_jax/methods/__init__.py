"""Methods: one published method a file, each a chain with its paper's defaults.

The equations of all methods share their letters:

    k, i, j     workers; "mean over k" is the average over all of them
    t           the step
    w, x        the parameters, in the letter of the paper
    g_k         the gradient of worker k
    lr_t        the learning rate of step t
    m, u        a momentum
    C(v)        what the channel transmits of v; the rest, v - C(v), is lost
    e_k         the residual of worker k: what was lost and is still to be sent
    W_ij        the weight of worker j in the average of worker i
"""
