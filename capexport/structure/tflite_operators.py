"""What TFLite's built-in operators need, by their codes (BuiltinOperator) in its schema.

Kernels rely on it, some without looking: they read the memory of what is left out.
"""

from __future__ import annotations

from .limits import MalformedError

UNTAKEN = {
    *(10, 15, 16, 24, 27, 29, 30, 33, 35, 44, 46, 52),  # tables, hashes of text and recurrent layers
    *(68, 120, 121, 124, 129, 131, 133, 134, 135, 149),  # sparse and complex tensors, boxes, set-up code, draws
    *range(136, 140),  # hash tables
    *range(142, 145),  # variables
    *range(162, 210),  # StableHLO's, whose options are of a kind of their own
}  # operators that no captioner has, and whose inputs are hard to vouch for

INPUTS = {
    2: {
        *(0, 3, 4, 7, 9, 18, 22, 23, 34, 36, 39, 40, 41, 42, 48, 49, 54, 55, 56, 57, 58, 61, 62, 63, 69, 70, 71, 72),
        *(74, 78, 79, 81, 82, 84, 86, 89, 90, 91, 94, 95, 97, 99, 100, 105, 107, 112, 115, 125, 126, 128, 130, 132),
        *(140, 145, 156, 160, 161),
    },
    3: {37, 38, 60, 64, 65, 67, 96, 102, 122, 123, 141, 151, 153, 154, 155, 157},
    4: {45, 85},
}  # operators by how many inputs they have at least; all others have one
LEAST_INPUTS = {operator: count for count, operators in INPUTS.items() for operator in operators}
LEAST_OUTPUTS = {48: 2, 103: 2}  # of TopKV2 and Unique; all others have one

BIAS = {3: 2, 4: 2, 9: 2, 67: 3, 132: 2, 141: 3}  # the one input that convolutions and dense layers may leave out: -1

READERS: dict[int, tuple[int, ...]] = {
    11: (0,),  # AddOptions
    5: (1, 12, 17),  # Pool2DOptions
    10: (2,),  # ConcatenationOptions
    1: (3,),  # Conv2DOptions
    2: (4,),  # DepthwiseConv2DOptions
    94: (5,),  # DepthToSpaceOptions
    8: (9,),  # FullyConnectedOptions
    12: (11,),  # L2NormOptions
    13: (13,),  # LocalResponseNormalizationOptions
    21: (18,),  # MulOptions
    15: (23,),  # ResizeBilinearOptions
    9: (25,),  # SoftmaxOptions
    19: (26,),  # SpaceToDepthOptions
    16: (31,),  # CallOptions
    23: (36,),  # GatherOptions
    27: (40, 74, 81, 82, 89, 91, 140),  # ReducerOptions
    28: (41,),  # SubOptions
    29: (42,),  # DivOptions
    30: (43,),  # SqueezeOptions
    32: (45,),  # StridedSliceOptions
    35: (49,),  # SplitOptions
    40: (56,),  # ArgMaxOptions
    49: (67,),  # TransposeConvOptions
    55: (77,),  # ShapeOptions
    57: (79,),  # ArgMinOptions
    58: (80,),  # FakeQuantOptions
    59: (83,),  # PackOptions
    61: (85,),  # OneHotOptions
    64: (88,),  # UnpackOptions
    74: (97,),  # ResizeNearestNeighborOptions
    75: (98,),  # LeakyReluOptions
    77: (100,),  # MirrorPadOptions
    79: (102,),  # SplitVOptions
    80: (103,),  # UniqueOptions
    87: (112,),  # ReverseSequenceOptions
    92: (118,),  # IfOptions
    93: (119,),  # WhileOptions
    101: (126,),  # BatchMatMulOptions
    102: (128,),  # CumsumOptions
    106: (132, 141),  # Conv3DOptions
    114: (146, 148),  # RandomOptions
    116: (150,),  # GeluOptions
}  # types of options (BuiltinOptions): operators whose kernels read them; others' are empty or say what tensors say
OPTIONS = {operator: kind for kind, operators in READERS.items() for operator in operators}

BARE = {0, 18, 41, 42}  # sums, products, differences and quotients: without options they have no activation


def check_operator(operator: int, inputs: tuple[int, ...], outputs: int, options: int) -> None:
    """Raise MalformedError for an operator that lacks what its kernel needs.

    operator  its code
    inputs    indices of tensors, -1 for one that is left out
    outputs   how many
    options   their type; 0 without any
    """
    if operator in UNTAKEN:
        raise MalformedError(f"it has an operator that no captioner has: {operator}")
    if len(inputs) < LEAST_INPUTS.get(operator, 1) or outputs < LEAST_OUTPUTS.get(operator, 1):
        raise MalformedError(f"an operator ({operator}) has too few inputs or outputs")
    if any(index == -1 and place != BIAS.get(operator) for place, index in enumerate(inputs)):
        raise MalformedError(f"an operator ({operator}) lacks an input that it needs")
    if options != OPTIONS.get(operator, options) and (options or operator not in BARE):
        raise MalformedError(f"an operator ({operator}) lacks its options, or has another's")
