r"""The weight of the curvature where the user gives none: it never outweighs the reconstruction."""

# w, for lengths in data space of about 1, and ρ.
LARGEST_WEIGHT, LARGEST_SHARE = 0.001, 0.001


def default_weight(error: float, functional: float) -> float:
    r"""The weight :math:`\min(w, \rho\, E / |C|)` with :math:`w = 0.001` and :math:`\rho = 0.001`.

    The weighted functional is then at most the share :math:`\rho` of the error. While it is less,
    training descends :math:`E + w C`; where it would be more, the weight follows ``E / C``, and
    training descends :math:`\log E + \rho \log C`: a curvature a thousand times lower may cost
    :math:`1000^{0.001}`, 0.7 % of error. A fixed weight stops a surface that has to bend before it
    fits the data, because the curvature of such a surface exceeds its final one by powers of ten.

    Args:
        error: reconstruction error E, at least 0.
        functional: value C of the curvature functional, of either sign.
    """
    if LARGEST_WEIGHT * abs(functional) <= LARGEST_SHARE * error:
        return LARGEST_WEIGHT
    return LARGEST_SHARE * error / abs(functional)
