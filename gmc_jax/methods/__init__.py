"""Methods: one published method a file, each a chain with its paper's defaults.

The equations of all methods share their letters:

    k, i, j     workers; "mean over k" is the average over all of them
    t           the step
    w, x        the parameters, in the letter of the paper
    z           the anchor: where all workers last synchronised
    g_k         the gradient of worker k
    lr_t        the learning rate of step t
    m           a momentum, also u or v in the letter of the paper
    C(p)        what the channel sends of p; the rest, p - C(p), is lost
    e_k         the residual of worker k: what was lost and is still to be sent
    W_ij        the weight of worker j in the average of worker i
    b           the number `momentum`, in guarantees

A method whose letters mean something else says so.
"""
