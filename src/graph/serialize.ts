/** Writes a graph as an ONNX model (onnx.proto3, IR version 10, opset 21 and com.microsoft 1). */
import type { Graph } from './graph.ts';
import type { DataType, GraphNode, OpAttributes, OpType, Subgraph, Value } from './ops.ts';
import { MessageWriter } from './protobuf.ts';
import type { Dim } from './shape.ts';

const IR_VERSION = 10;
const OPSET = 21;
const MICROSOFT = 'com.microsoft';
const MICROSOFT_OPSET = 1;

const ELEMENT_TYPE: { readonly [D in DataType]: number } = { float32: 1, int64: 7 };
/** No value of a graph has it: nodes that compute in it take and give float32. */
const FLOAT16 = 10;
const ATTRIBUTE_FLOAT = 1;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_STRING = 3;
const ATTRIBUTE_GRAPH = 5;
const ATTRIBUTE_INTS = 7;
const DATA_LOCATION_EXTERNAL = 1;

type AttributeValue = { readonly float: number } | { readonly int: number } | { readonly ints: readonly number[] } | { readonly text: string } | { readonly graph: Subgraph };
interface WrittenNode {
  readonly type: string;
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** It takes float16 and gives float16. */
  readonly half?: true;
}
type NodeWriter<Op extends OpType> = (attributes: OpAttributes[Op]) => WrittenNode;

const plain = (type: string) => (): WrittenNode => ({ type });
const flag = (value: boolean): AttributeValue => ({ int: value ? 1 : 0 });
const reduction = (type: string) => (at: { readonly keepDims: boolean }): WrittenNode => ({ type, attributes: { keepdims: flag(at.keepDims) } });
const axial = (type: string) => (at: { readonly axis: number }): WrittenNode => ({ type, attributes: { axis: { int: at.axis } } });
const product = ({ transA, transB, alpha }: OpAttributes['FusedMatMul']): WrittenNode =>
  transA || transB || alpha !== 1
    ? { type: 'FusedMatMul', domain: MICROSOFT, attributes: { transA: flag(transA), transB: flag(transB), alpha: { float: alpha } } }
    : { type: 'MatMul' };

const NODE_WRITERS: { readonly [Op in OpType]: NodeWriter<Op> } = {
  Add: plain('Add'),
  Sub: plain('Sub'),
  Mul: plain('Mul'),
  Div: plain('Div'),
  Neg: plain('Neg'),
  Exp: plain('Exp'),
  Log: plain('Log'),
  Sigmoid: plain('Sigmoid'),
  Abs: plain('Abs'),
  Sign: plain('Sign'),
  Silu: () => ({ type: 'QuickGelu', domain: MICROSOFT, attributes: { alpha: { float: 1 } } }),
  FusedMatMul: product,
  HalfMatMul: (at) => ({ ...product({ ...at, alpha: 1 }), half: true }),
  Softmax: axial('Softmax'),
  LogSoftmax: axial('LogSoftmax'),
  SimplifiedLayerNormalization: (at) => ({
    type: 'SimplifiedLayerNormalization',
    attributes: { axis: { int: -1 }, epsilon: { float: at.epsilon }, stash_type: { int: ELEMENT_TYPE.float32 } },
  }),
  RotaryEmbedding: () => ({ type: 'RotaryEmbedding', domain: MICROSOFT, attributes: { interleaved: { int: 0 } } }),
  Reshape: plain('Reshape'),
  Transpose: (at) => ({ type: 'Transpose', attributes: { perm: { ints: at.perm } } }),
  Unsqueeze: plain('Unsqueeze'),
  Concat: axial('Concat'),
  Slice: plain('Slice'),
  Split: axial('Split'),
  Expand: plain('Expand'),
  Gather: axial('Gather'),
  GatherElements: axial('GatherElements'),
  ScatterElements: (at) => ({ type: 'ScatterElements', attributes: { axis: { int: at.axis }, reduction: { text: 'add' } } }),
  ScatterND: () => ({ type: 'ScatterND', attributes: { reduction: { text: 'add' } } }),
  TopK: plain('TopK'),
  CumSum: plain('CumSum'),
  ReduceSum: reduction('ReduceSum'),
  ReduceMean: reduction('ReduceMean'),
  ReduceMax: reduction('ReduceMax'),
  Shape: (at) => ({ type: 'Shape', attributes: { start: { int: at.start }, end: { int: at.end } } }),
  ConstantOfShape: plain('ConstantOfShape'),
  Identity: plain('Identity'),
  Scan: (at) => ({ type: 'Scan', attributes: { body: { graph: at.body }, num_scan_inputs: { int: at.body.inputs.length - at.states } } }),
};

interface Reachable {
  /**
   * In an order in which they can run. Those that nothing else consumes come at the end, the last one first: the runtime
   * walks back from the last of them, and so computes what a backward pass could give early before what it gives late.
   * What an early result was made of is then free again.
   */
  readonly nodes: readonly GraphNode[];
  readonly constants: readonly Value[];
  /** Of a body: values of the graph around it. */
  readonly captured: readonly Value[];
}

/** What the outputs need. */
export function reachable(graph: Subgraph): Reachable {
  const own = new Set(graph.nodes);
  const inputs = new Set(graph.inputs);
  const used = new Set<GraphNode>();
  const constants = new Set<Value>();
  const captured = new Set<Value>();
  const consumed = new Set<GraphNode>();
  const need = (values: readonly Value[]): void => {
    for (const value of values) if (value.source.kind === 'node') consumed.add(value.source.node);
    open.push(...values);
  };
  const open: Value[] = graph.outputs.map((output) => output.value);
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    const { source } = value;
    if (source.kind === 'input') {
      if (!inputs.has(value)) captured.add(value);
    } else if (source.kind !== 'node') constants.add(value);
    else if (!own.has(source.node)) captured.add(value);
    else if (!used.has(source.node)) {
      used.add(source.node);
      need(source.node.inputs);
      if (isScan(source.node)) {
        const inside = reachable(source.node.attributes.body);
        need([...inside.captured, ...inside.constants]);
      }
    }
  }
  const nodes = graph.nodes.filter((node) => used.has(node));
  const last = nodes.filter((node) => !consumed.has(node));
  return { nodes: [...nodes.filter((node) => consumed.has(node)), ...last.toReversed()], constants: [...constants], captured: [...captured] };
}

const isScan = (node: GraphNode): node is GraphNode<'Scan'> => node.op === 'Scan';

type NameOf = (value: Value) => string;

/** A result is computed under the name of its output, so that the caller's buffer receives it without a copy. */
function valueNames(graph: Graph): NameOf {
  const renamed = new Map<Value, string>();
  for (const { name, value } of graph.outputs) if (value.source.kind === 'node' && !renamed.has(value)) renamed.set(value, name);
  return (value) => renamed.get(value) ?? value.name;
}

/** `metadata`: texts that the file carries beside the graph (metadata_props). */
export function toOnnx(graph: Graph, name: string, metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  const { nodes, constants } = reachable(graph);
  const nameOf = valueNames(graph);
  const model = new MessageWriter();
  model.integer(1, IR_VERSION).text(2, 'stillhouse');
  model.message(7, (body) => {
    writeNodes(body, nodes, nameOf);
    for (const { name: outputName, value } of graph.outputs) {
      if (nameOf(value) !== outputName) body.message(1, (message) => message.text(1, nameOf(value)).text(2, outputName).text(4, 'Identity'));
    }
    body.text(2, name);
    for (const constant of constants) body.message(5, (message) => writeTensor(message, constant));
    for (const input of graph.inputs) body.message(11, (message) => writeValueInfo(message, input.name, input));
    for (const output of graph.outputs) body.message(12, (message) => writeValueInfo(message, output.name, output.value));
  });
  model.message(8, (opset) => opset.text(1, '').integer(2, OPSET));
  model.message(8, (opset) => opset.text(1, MICROSOFT).integer(2, MICROSOFT_OPSET));
  for (const [key, value] of Object.entries(metadata)) model.message(14, (entry) => entry.text(1, key).text(2, value));
  return model.finish();
}

/** A body's outputs are results of its own nodes; constants are the outermost graph's. */
function writeBody(message: MessageWriter, body: Subgraph, nameOf: NameOf): void {
  writeNodes(message, reachable(body).nodes, nameOf);
  message.text(2, 'body');
  for (const input of body.inputs) message.message(11, (written) => writeValueInfo(written, input.name, input));
  for (const { value } of body.outputs) message.message(12, (written) => writeValueInfo(written, value.name, value));
}

function writeNodes(message: MessageWriter, nodes: readonly GraphNode[], nameOf: NameOf): void {
  const halves = new Halves(message, nameOf);
  for (const node of nodes) {
    const written = writtenAs(node);
    const [first] = node.outputs as readonly [Value, ...Value[]];
    if (written.half === true) {
      const output = nameOf(first);
      const inputs = node.inputs.map((input, i) => halves.narrowed(input, `${output}.${i}`));
      halves.widened(output, first.shape.length, (result) => writeNode(message, written, { name: result, inputs, outputs: [result] }, nameOf));
    } else writeNode(message, written, { name: first.name, inputs: node.inputs.map(nameOf), outputs: node.outputs.map(nameOf) }, nameOf);
  }
}

const writtenAs = <Op extends OpType>(node: GraphNode<Op>): WrittenNode => NODE_WRITERS[node.op](node.attributes);

function writeNode(message: MessageWriter, written: WrittenNode, { name, inputs, outputs }: { readonly name: string; readonly inputs: readonly string[]; readonly outputs: readonly string[] }, nameOf: NameOf): void {
  message.message(1, (node) => {
    for (const input of inputs) node.text(1, input);
    for (const output of outputs) node.text(2, output);
    node.text(3, name).text(4, written.type);
    for (const [key, value] of Object.entries(written.attributes ?? {})) node.message(5, (attribute) => writeAttribute(attribute, key, value, nameOf));
    if (written.domain !== undefined) node.text(7, written.domain);
  });
}

/**
 * The float16 around the nodes that compute in it. Where a provider has no such node, the runtime casts its inputs back,
 * and then takes both casts for none: a reshape to the same shape between them, which costs nothing, keeps what they round.
 */
class Halves {
  readonly #message: MessageWriter;
  readonly #nameOf: NameOf;
  readonly #narrowed = new Map<Value, string>();
  readonly #shapes = new Map<number, string>();

  constructor(message: MessageWriter, nameOf: NameOf) {
    this.#message = message;
    this.#nameOf = nameOf;
  }

  /** The name of a value in float16: `name`, or what an earlier node of this body called it. */
  narrowed(value: Value, name: string): string {
    const known = this.#narrowed.get(value);
    if (known !== undefined) return known;
    const constant = value.source.kind === 'constant' || value.source.kind === 'external';
    this.#write({ type: 'Cast', attributes: { to: { int: FLOAT16 } } }, [this.#nameOf(value)], constant ? name : `${name}.cast`);
    if (!constant) this.#sameShape(`${name}.cast`, value.shape.length, name);
    this.#narrowed.set(value, name);
    return name;
  }

  /** Has a result written in float16, and gives it in float32 under `name`. */
  widened(name: string, rank: number, write: (result: string) => void): void {
    write(`${name}.product`);
    this.#sameShape(`${name}.product`, rank, `${name}.float16`);
    this.#write({ type: 'Cast', attributes: { to: { int: ELEMENT_TYPE.float32 } } }, [`${name}.float16`], name);
  }

  #sameShape(from: string, rank: number, to: string): void {
    if (!this.#shapes.has(rank)) {
      const shape = `${to}.shape`;
      this.#write({ type: 'Constant', attributes: { value_ints: { ints: Array.from({ length: rank }, () => 0) } } }, [], shape);
      this.#shapes.set(rank, shape);
    }
    this.#write({ type: 'Reshape' }, [from, this.#shapes.get(rank) as string], to);
  }

  #write(written: WrittenNode, inputs: readonly string[], output: string): void {
    writeNode(this.#message, written, { name: output, inputs, outputs: [output] }, this.#nameOf);
  }
}

function writeAttribute(message: MessageWriter, name: string, value: AttributeValue, nameOf: NameOf): void {
  message.text(1, name);
  if ('float' in value) message.float(2, value.float).integer(20, ATTRIBUTE_FLOAT);
  else if ('int' in value) message.integer(3, value.int).integer(20, ATTRIBUTE_INT);
  else if ('text' in value) message.text(4, value.text).integer(20, ATTRIBUTE_STRING);
  else if ('graph' in value) message.message(6, (body) => writeBody(body, value.graph, nameOf)).integer(20, ATTRIBUTE_GRAPH);
  else {
    for (const item of value.ints) message.integer(8, item);
    message.integer(20, ATTRIBUTE_INTS);
  }
}

function writeTensor(message: MessageWriter, value: Value): void {
  for (const dim of value.shape) message.integer(1, Number(dim));
  message.integer(2, ELEMENT_TYPE[value.dtype]).text(8, value.name);
  if (value.source.kind === 'constant') {
    const { buffer, byteOffset, byteLength } = value.source.data;
    message.bytes(9, new Uint8Array(buffer, byteOffset, byteLength));
  } else if (value.source.kind === 'external') {
    const { location, offsetBytes, lengthBytes } = value.source;
    for (const [key, text] of [['location', location], ['offset', String(offsetBytes)], ['length', String(lengthBytes)]] as const) {
      message.message(13, (entry) => entry.text(1, key).text(2, text));
    }
    message.integer(14, DATA_LOCATION_EXTERNAL);
  }
}

function writeValueInfo(message: MessageWriter, name: string, value: Value): void {
  message.text(1, name).message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.integer(1, ELEMENT_TYPE[value.dtype]);
      tensor.message(2, (shape) => {
        for (const dim of value.shape) shape.message(1, (written) => writeDim(written, dim));
      });
    }),
  );
}

function writeDim(message: MessageWriter, dim: Dim): void {
  if (typeof dim === 'number') message.integer(1, dim);
  else message.text(2, dim);
}
