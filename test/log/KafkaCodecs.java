import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Writes what only a Java client writes: its framing of each codec, and transactions. Run by kafka-log.test.ts. */
public class KafkaCodecs {
  public static void main(String[] args) throws Exception {
    int next = 0;
    for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
      try (KafkaProducer<String, String> producer = producer(args[0], codec, null)) {
        for (int i = 0; i < 400; i++) producer.send(record(args[1], next++));
      }
    }
    try (KafkaProducer<String, String> producer = producer(args[0], "zstd", "contract-" + args[1])) {
      producer.initTransactions();
      producer.beginTransaction();
      for (int i = 0; i < 50; i++) producer.send(record(args[1], -1));
      producer.flush();
      producer.abortTransaction();
      producer.beginTransaction();
      for (int i = 0; i < 50; i++) producer.send(record(args[1], next++));
      producer.commitTransaction();
    }
  }

  static ProducerRecord<String, String> record(String topic, int number) {
    // Far apart, so that a batch spans more than 2^31 ms.
    return new ProducerRecord<>(topic, 0, 1_600_000_000_000L + number * 10_800_000L, "key-" + number % 10, number + " " + "payload ".repeat(10));
  }

  static KafkaProducer<String, String> producer(String bootstrap, String codec, String transactionalId) {
    Properties properties = new Properties();
    properties.put("bootstrap.servers", bootstrap);
    properties.put("compression.type", codec);
    properties.put("linger.ms", "20");
    properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
    properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
    if (transactionalId != null) properties.put("transactional.id", transactionalId);
    return new KafkaProducer<>(properties);
  }
}
