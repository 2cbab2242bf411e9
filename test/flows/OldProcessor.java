// An older processor, as far as Kafka can tell: the Java client with its own way to share partitions and to commit. Prints
// what it consumes, and goes in good order when a line comes in.
// Usage: java -cp 'kafka jars' OldProcessor.java BOOTSTRAP GROUP TOPIC... prints "topic<TAB>partition<TAB>offset<TAB>value"
import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class OldProcessor {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("group.id", args[1]);
        properties.put("client.id", "older-processor");
        properties.put("auto.offset.reset", "earliest");
        properties.put("auto.commit.interval.ms", "500");
        properties.put("key.deserializer", StringDeserializer.class.getName());
        properties.put("value.deserializer", StringDeserializer.class.getName());
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            consumer.subscribe(Arrays.asList(args).subList(2, args.length));
            while (System.in.available() == 0) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    System.out.println(String.join("\t", record.topic(), "" + record.partition(), "" + record.offset(), record.value()));
                }
            }
        }
    }
}
