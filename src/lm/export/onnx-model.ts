/**
 * A model as an ONNX graph with a key/value cache, its inputs and outputs named and shaped as Hugging Face Optimum
 * exports them, so that programs written for those run it with plain onnxruntime. Letters as in src/lm/model.ts.
 */
import { StillhouseError } from '../../contracts/errors.ts';
import { Graph } from '../../graph/graph.ts';
import type { FloatValue, IntValue } from '../../graph/ops.ts';
import { toOnnx } from '../../graph/serialize.ts';
import { addDims, formatShape, sameShape } from '../../graph/shape.ts';
import { MASKED, norm, type DecoderInputs, type KeyValue, type WeightLookup } from '../architectures/decoder.ts';
import { ARCHITECTURES, decoder, headWeight } from '../architectures/registry.ts';
import type { ModelConfig } from '../config.ts';
import { ENCODERS } from '../weights/encode.ts';
import { elementCount, type StoredTensor } from '../weights/tensor-file.ts';
import { writeFolderFiles } from './hugging-face-folder.ts';
import type { OutputFolder } from './output-folder.ts';
import { provenanceTexts } from './provenance.ts';
import type { ExportSource } from './source.ts';

const GRAPH_FILE = 'model.onnx';
const DATA_FILE = 'model.onnx_data';
/** The runtime maps external data: tensors start on pages. */
const ALIGNMENT_BYTES = 4_096;
/** Rotary tables are part of the graph: 16 MB at this length and a head of 64. */
const MAX_CONTEXT_TOKENS = 32_768;

export const onnxContextTokens = ({ maxPositions }: ModelConfig): number => Math.min(maxPositions, MAX_CONTEXT_TOKENS);

interface Placed {
  readonly tensor: StoredTensor;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Where each tensor lies in the file of external data. */
function place(tensors: Iterable<StoredTensor>): ReadonlyMap<string, Placed> {
  const placed = new Map<string, Placed>();
  let end = 0;
  for (const tensor of tensors) {
    const offsetBytes = Math.ceil(end / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    const lengthBytes = elementCount(tensor.shape) * 4;
    placed.set(tensor.name, { tensor, offsetBytes, lengthBytes });
    end = offsetBytes + lengthBytes;
  }
  return placed;
}

function externalWeights(g: Graph, placed: ReadonlyMap<string, Placed>): WeightLookup {
  return (name, shape) => {
    const found = placed.get(name);
    if (found === undefined || !sameShape(found.tensor.shape, shape)) throw new StillhouseError('INTERNAL', `export: expected a tensor ${name} ${formatShape(shape)}, got ${found === undefined ? 'none' : formatShape(found.tensor.shape)}`);
    return g.external(name, shape, { location: DATA_FILE, offsetBytes: found.offsetBytes, lengthBytes: found.lengthBytes });
  };
}

/**
 * (B, 1, T, S): which of the P + T tokens each new one may look at. attentionMask: (B, S), 0 where a token is padding,
 * on whichever side. Places are counted without padding, so that the order of tokens alone decides.
 */
function attentionScores(g: Graph, attentionMask: IntValue, lengths: IntValue, contextTokens: number): { readonly mask: FloatValue; readonly pastPositions: IntValue } {
  const places = g.sub(g.cumulativeSum(attentionMask, 1), g.ints([1], [1])); // (B, S)
  const [pastPositions, newPlaces] = g.split(places, 1, ['P', 'T'], lengths) as readonly [IntValue, IntValue]; // (B, P), (B, T)
  const distance = g.sub(g.unsqueeze(newPlaces, [2]), g.unsqueeze(places, [1])); // (B, T, S)
  // Indexed by distance; a negative one, of a key after its query, counts from the end of the table.
  const later = g.floats(new Float32Array(2 * contextTokens).fill(MASKED, contextTokens), [2 * contextTokens]);
  const causal = g.unsqueeze(g.gather(later, distance), [1]);
  const padding = g.unsqueeze(g.gather(g.floats([MASKED, 0], [2]), attentionMask), [1, 2]); // (B, 1, 1, S)
  return { mask: g.add(causal, padding), pastPositions };
}

/** Inputs as Optimum names them. */
function graphInputs(g: Graph, config: ModelConfig, contextTokens: number): DecoderInputs {
  const ids = g.input('input_ids', 'int64', ['B', 'T']);
  const attentionMask = g.input('attention_mask', 'int64', ['B', addDims(['P', 'T'])]);
  const positions = g.input('position_ids', 'int64', ['B', 'T']);
  const shape = ['B', config.keyValueHeads, 'P', config.headSize] as const;
  const past = Array.from({ length: config.layers }, (_, layer): KeyValue => ({
    key: g.input(`past_key_values.${layer}.key`, 'float32', shape),
    value: g.input(`past_key_values.${layer}.value`, 'float32', shape),
  }));
  const lengths = g.concat([g.sizeOf((past[0] as KeyValue).key, 2), g.sizeOf(ids, 1)], 0); // (2): P and T
  const { mask, pastPositions } = attentionScores(g, attentionMask, lengths, contextTokens);
  return { ids, positions, mask, past, ...(config.slidingWindow === undefined ? {} : { pastPositions }) };
}

/** The graph alone; its weights are external data at the given places. */
function buildGraph(source: ExportSource, placed: ReadonlyMap<string, Placed>): Uint8Array {
  const { config } = source;
  const g = new Graph();
  const contextTokens = onnxContextTokens(config);
  const weight = externalWeights(g, placed);
  const { hidden, present } = decoder(g, config, weight, graphInputs(g, config, contextTokens), { contextTokens });
  const normed = norm({ g, config, weight }, hidden, 'model.norm', config.hiddenSize, ARCHITECTURES[config.architecture].normOffset); // (B, T, H)
  g.output('logits', g.matMul(normed, headWeight(config, weight), { transB: true })); // (B, T, V)
  present.forEach(({ key, value }, layer) => {
    g.output(`present.${layer}.key`, key);
    g.output(`present.${layer}.value`, value);
  });
  return toOnnx(g, config.architecture, provenanceTexts(source.provenance));
}

/** Writes model.onnx, model.onnx_data (float32), and beside them configuration and tokenizer. */
export async function writeOnnxModel(folder: OutputFolder, source: ExportSource): Promise<void> {
  const placed = place(source.tensors.values());
  await folder.text(GRAPH_FILE, buildGraph(source, placed));
  await folder.file(DATA_FILE, async (file) => {
    for (const { tensor } of placed.values()) {
      await file.pad(ALIGNMENT_BYTES);
      for (const values of tensor.blocks()) await file.write(ENCODERS.f32.encode(values));
    }
  });
  await writeFolderFiles(folder, source, 'f32');
}
