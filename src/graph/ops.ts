/** The operators that a graph is made of, with their attributes. The gradient table is total over them. */
import type { Shape } from './shape.ts';

export type DataType = 'float32' | 'int64';

type NoAttributes = Readonly<Record<never, never>>;

export interface OpAttributes {
  Add: NoAttributes;
  Sub: NoAttributes;
  Mul: NoAttributes;
  Div: NoAttributes;
  Neg: NoAttributes;
  Exp: NoAttributes;
  Log: NoAttributes;
  Sigmoid: NoAttributes;
  Abs: NoAttributes;
  /** −1, 0 or 1. */
  Sign: NoAttributes;
  /** x·σ(x). */
  Silu: NoAttributes;
  /** alpha · op(A) op(B); written as MatMul where nothing is fused. */
  FusedMatMul: { readonly transA: boolean; readonly transB: boolean; readonly alpha: number };
  /** op(A) op(B) in half precision: A and B are rounded to float16, and so is their product; as values of the graph all are float32. */
  HalfMatMul: { readonly transA: boolean; readonly transB: boolean };
  Softmax: { readonly axis: number };
  LogSoftmax: { readonly axis: number };
  SimplifiedLayerNormalization: { readonly epsilon: number };
  RotaryEmbedding: NoAttributes;
  Reshape: NoAttributes;
  Transpose: { readonly perm: readonly number[] };
  Unsqueeze: { readonly axes: readonly number[] };
  /** `lengths`: sizes of the parts along the axis, where they are known at run time alone; for the gradient. */
  Concat: { readonly axis: number; readonly lengths?: IntValue };
  Slice: { readonly axis: number; readonly start: number; readonly end: number };
  /** Into parts whose sizes are an input. */
  Split: { readonly axis: number };
  Expand: NoAttributes;
  Gather: { readonly axis: number };
  GatherElements: { readonly axis: number };
  /** Adds the updates where indices collide. */
  ScatterElements: { readonly axis: number };
  /** Adds the updates where indices collide. */
  ScatterND: NoAttributes;
  /** The largest of the last dimension, descending, and where they were; how many is an input. */
  TopK: NoAttributes;
  /** Each element and all before it, summed. */
  CumSum: { readonly axis: number };
  ReduceSum: { readonly axes: readonly number[]; readonly keepDims: boolean };
  ReduceMean: { readonly axes: readonly number[]; readonly keepDims: boolean };
  ReduceMax: { readonly axes: readonly number[]; readonly keepDims: boolean };
  /** Of the dimensions from `start` to before `end`. */
  Shape: { readonly start: number; readonly end: number };
  /** Zeros of the shape that the input holds. */
  ConstantOfShape: NoAttributes;
  Identity: NoAttributes;
  /** Inputs are the first states, then what is cut along its first dimension: a slice of each for one run of the body. */
  Scan: { readonly body: Subgraph; readonly states: number };
}
export type OpType = keyof OpAttributes;

export type TensorSource =
  | { readonly kind: 'input' }
  | { readonly kind: 'node'; readonly node: GraphNode }
  | { readonly kind: 'constant'; readonly data: Float32Array | BigInt64Array }
  | { readonly kind: 'external'; readonly location: string; readonly offsetBytes: number; readonly lengthBytes: number };

export interface Value<D extends DataType = DataType> {
  /** Unique in its graph. */
  readonly name: string;
  readonly dtype: D;
  readonly shape: Shape;
  readonly source: TensorSource;
}
export type FloatValue = Value<'float32'>;
export type IntValue = Value<'int64'>;

/** The body of a Scan. It may use values of the graph around it. */
export interface Subgraph {
  readonly nodes: readonly GraphNode[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly { readonly name: string; readonly value: Value }[];
}

export interface GraphNode<Op extends OpType = OpType> {
  readonly op: Op;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly attributes: OpAttributes[Op];
  /** Cheap: a backward pass computes its results again instead of keeping them from the forward pass. */
  readonly recomputed: boolean;
}
