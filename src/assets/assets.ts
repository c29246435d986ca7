/** Things fetched from outside and kept in a cache: models, data, the Temporal CLI. Each is verified by SHA-256. */

export interface FetchProgress {
  readonly name: string;
  readonly doneBytes: number;
  readonly totalBytes?: number;
}

export interface AssetOptions {
  readonly onProgress?: (progress: FetchProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ModelFiles {
  readonly name: string;
  /** A GGUF file, or a folder with config.json, tokenizer.json and safetensors. */
  readonly path: string;
  readonly license: string;
  /** Where the Hugging Face hub has it, or the model that it is a conversion of. */
  readonly hub?: HubModel;
}

/** A model of the Hugging Face hub, as other programs name it. */
export interface HubModel {
  /** ORGANISATION/NAME. */
  readonly repository: string;
  /** The commit. Absent where it is not known. */
  readonly revision?: string;
}

export interface Assets {
  /** Resolves a model's name (catalogue, `hf:org/name@revision`, path) to verified files, fetching what is missing. NOT_FOUND names the known ones. */
  model(name: string, options?: AssetOptions): Promise<ModelFiles>;
  /** Resolves `catalogue:NAME` to a verified local JSONL file of { input, gold? } rows; a path to itself. */
  dataset(name: string, options?: AssetOptions): Promise<string>;
  /** The Temporal CLI: one on PATH, else fetched. */
  temporalCli(options?: AssetOptions): Promise<string>;
}
