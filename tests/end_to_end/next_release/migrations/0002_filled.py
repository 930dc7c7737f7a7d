"""Something that takes long, in one transaction: as long as somebody else keeps a lock."""

from django.db import migrations

GATE = 4242


class Migration(migrations.Migration):
    dependencies = [("next_release", "0001_column")]
    operations = [
        migrations.RunSQL(
            [
                "CREATE TABLE next_release_filled (number int)",
                "INSERT INTO next_release_filled VALUES (1)",
                f"DO $$ BEGIN WHILE NOT pg_try_advisory_xact_lock({GATE}) LOOP"
                " PERFORM pg_sleep(0.05); END LOOP; END $$",
            ]
        )
    ]
