import sys; C=sys.argv[1:]; sys.argv=['x','','','']
exec(open('/work/main/.dev/hold5.py').read().split("V=eval")[0])
import numpy as np
from PIL import Image
rows=[]
for c in C:
    z=torch.load(f'/work/scratch/lat/{c}.pt',weights_only=False); t=z['truth']; x=z['lat'].float(); r=z['ref'].reshape(1,-1,32,32).float()
    y,s,plate,of=hold(x,r,z['body'][0,1:],z['body'][0,0],.02,.05,2,.8,.8,2,True)
    g=z['video'][0].float()/255
    from xdyna.data.synthetic import SCENES
    print(c,SCENES[int(t.scene[0])] if not isinstance(SCENES,dict) else list(SCENES)[int(t.scene[0])], 'still',bool(t.still[0]))
    dm=lambda v:(v[1:]-v[:-1]).abs().mean((0,1))*255/20
    d3=lambda m:m.clamp(0,1)[None].expand(3,-1,-1)
    S=F.interpolate(s.mean(0)[None,None],size=size,mode='nearest')[0,0]
    row=torch.cat([z['own'][0].float(),t.frames[0,8],g[8],d3(dm(t.frames[0])),d3(dm(g)),d3(S)],2)
    rows.append(row)
a=(torch.cat(rows,1).permute(1,2,0).clamp(0,1)*255).byte().numpy()
Image.fromarray(a).save('/work/scratch/view.png')
