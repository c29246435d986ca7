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
  Sigmoid: NoAttributes;
  /** alpha · op(A) op(B); written as MatMul where nothing is fused. */
  FusedMatMul: { readonly transA: boolean; readonly transB: boolean; readonly alpha: number };
  Softmax: { readonly axis: number };
  SimplifiedLayerNormalization: { readonly epsilon: number };
  RotaryEmbedding: NoAttributes;
  SoftmaxCrossEntropyLoss: NoAttributes;
  Reshape: NoAttributes;
  Transpose: { readonly perm: readonly number[] };
  Unsqueeze: { readonly axes: readonly number[] };
  Concat: { readonly axis: number };
  Slice: { readonly axis: number; readonly start: number; readonly end: number };
  Expand: NoAttributes;
  Gather: { readonly axis: number };
  GatherElements: { readonly axis: number };
  /** Adds the updates where indices collide. */
  ScatterElements: { readonly axis: number };
  /** Adds the updates where indices collide. */
  ScatterND: NoAttributes;
  ReduceSum: { readonly axes: readonly number[]; readonly keepDims: boolean };
  ReduceMean: { readonly axes: readonly number[]; readonly keepDims: boolean };
  Shape: NoAttributes;
  /** Zeros of the shape that the input holds. */
  ConstantOfShape: NoAttributes;
  Identity: NoAttributes;
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

export interface GraphNode<Op extends OpType = OpType> {
  readonly op: Op;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly attributes: OpAttributes[Op];
}
